"""Actors of a network: registration, roles by the operator's credentials, revocation, key rotation."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

from flexrelay.app import Gateway, Site
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.identities import registered
from flexrelay.commissioning.operator import operator_of
from flexrelay.founding import identity_in
from flexrelay.identity import Identity, issue_role_credential
from flexrelay_schemas.credentials import Role
from flexrelay_sdk.clock import wall_ms

VALID_DAYS: Final = 366
ROLES: Final[tuple[str, ...]] = tuple(role for role in get_args(Role) if role != "device")
_DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Actor:
    """`roles` are those in force, as role → markets. `status` "unregistered": its key is in the wallet only."""

    org: str
    label: str
    did: str
    status: str
    key_version: int
    roles: dict[str, tuple[str, ...]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


async def add_actor(
    site: Site,
    org: str,
    label: str,
    roles: Sequence[str] = (),
    *,
    markets: Sequence[str] = ("*",),
    valid_days: int = VALID_DAYS,
) -> Actor:
    """Make the actor's key in the organisation's wallet, register its DID through the organisation's gateway, and
    enrol its roles. What is there already stays. Raises Refused and CommissioningError."""
    gateway = gateway_of(site, org)
    for role in roles:
        if role not in ROLES:
            raise CommissioningError(f"role {role!r} is unknown; there are {', '.join(ROLES)}")
    identity = identity_in(gateway.wallet, site.network, "actor", label)
    if identity.kind != "actor":
        raise CommissioningError(f"{label!r} of {org} is a {identity.kind}: choose another label")
    if await registered(gateway, identity.did) is None:
        proven = await gateway.wallet.proven(identity.did)
        await gateway.desk(identity.did).do("identity.register", {**proven, "gateway": gateway.signer.did})
    held = await _roles(gateway, identity.did)
    for role in roles:
        if not set(markets) <= set(held.get(role, ())):
            await give_role(site, org, label, role, markets=markets, valid_days=valid_days)
    return await describe(gateway, identity)


async def give_role(
    site: Site,
    org: str,
    label: str,
    role: str,
    *,
    markets: Sequence[str] = ("*",),
    valid_days: int = VALID_DAYS,
) -> None:
    """A credential of the operator for the role, enrolled by the actor itself. Raises Refused, CommissioningError."""
    gateway, identity = find(site, org, label)
    keeper, operator = operator_of(site)
    # the ledger takes no proof from its future, and none that is older than what it has from the same issuer
    created = max(wall_ms() - 1000, await _newest(gateway, identity.did, role, operator.did) + 1)
    try:
        credential = await issue_role_credential(
            keeper.wallet.signer(operator.did),
            network=site.network,
            subject=identity.did,
            role=role,
            markets=markets,
            valid_from_ms=created,
            valid_until_ms=created + valid_days * _DAY_MS,
            created_ms=created,
        )
    except ValueError as error:
        raise CommissioningError(f"role {role!r} for {', '.join(markets)} cannot be given: {error}") from None
    await gateway.desk(identity.did).do("grants.enrol", {"credential": credential.encode()})


async def revoke_role(site: Site, org: str, label: str, role: str, reason: str = "") -> Actor:
    """The operator revokes the role, whoever issued it. Raises Refused, CommissioningError."""
    gateway, identity = find(site, org, label)
    keeper, operator = operator_of(site)
    args = {"subject": identity.did, "role": role, "issuer": "*", "reason": reason}
    await keeper.desk(operator.did).do("grants.revoke", args)
    return await describe(gateway, identity)


async def rotate_key(site: Site, org: str, label: str) -> Actor:
    """Go over to the key that the DID's log has committed to, and commit to a new one. Raises Refused."""
    gateway, identity = find(site, org, label)
    record = await registered(gateway, identity.did)
    if record is None:
        raise CommissioningError(f"{label!r} of {org} is not registered: flexrelay actor add")
    if identity.pending is None or record["version"] < identity.pending.version:
        proven = await gateway.wallet.begin_rotation(identity.did)
        await gateway.desk(identity.did).do("identity.rotate", proven)
    return await describe(gateway, gateway.wallet.finish_rotation(identity.did))


async def list_actors(site: Site, org: str = "") -> list[Actor]:
    """The actors in the wallets of this folder, by organisation and label."""
    return [
        await describe(gateway, identity)
        for name, gateway in sorted(site.gateways.items())
        if org in ("", name)
        for identity in gateway.wallet.identities()
        if identity.kind == "actor"
    ]


async def describe(gateway: Gateway, identity: Identity) -> Actor:
    """How the ledger knows an identity of this gateway's wallet."""
    record = await registered(gateway, identity.did)
    if record is None:
        return Actor(gateway.org, identity.label, identity.did, "unregistered", identity.version, {})
    roles = await _roles(gateway, identity.did)
    return Actor(gateway.org, identity.label, identity.did, record["status"], record["version"], roles)


def gateway_of(site: Site, org: str) -> Gateway:
    """Raises CommissioningError for an organisation that has no gateway here."""
    gateway = site.gateways.get(org)
    if gateway is None:
        raise CommissioningError(
            f"organisation {org!r} has no gateway here; there are {', '.join(sorted(site.gateways))}"
        )
    return gateway


def find(site: Site, org: str, label: str) -> tuple[Gateway, Identity]:
    """An identity by its label. Raises CommissioningError."""
    gateway = gateway_of(site, org)
    identity = gateway.wallet.find(label)
    if identity is None:
        known = ", ".join(found.label for found in gateway.wallet.identities() if found.kind == "actor") or "none"
        raise CommissioningError(f"the wallet of {org} has no {label!r}; there are {known}")
    return gateway, identity


async def _newest(gateway: Gateway, did: str, role: str, issuer: str) -> int:
    """When the issuer's newest credential for the role was made or revoked, wall ms; -1 when there is none."""
    return max(
        (
            max(held["created_ms"], held.get("revoked_ms", -1))
            for grant in await gateway.ledger.evaluate("grants.list", {"subject": did})
            for held in (grant, *grant.get("others", ()))
            if grant["role"] == role and held["issuer"] == issuer
        ),
        default=-1,
    )


async def _roles(gateway: Gateway, did: str) -> dict[str, tuple[str, ...]]:
    """Role → markets, from all issuers whose credential is in force now."""
    now = wall_ms()
    roles: dict[str, tuple[str, ...]] = {}
    for grant in await gateway.ledger.evaluate("grants.list", {"subject": did}):
        markets = {
            market
            for held in (grant, *grant.get("others", ()))
            if held["status"] == "active" and held["nbf"] <= now < held["exp"]
            for market in held["markets"]
        }
        if markets:
            roles[grant["role"]] = tuple(sorted(markets))
    return roles
