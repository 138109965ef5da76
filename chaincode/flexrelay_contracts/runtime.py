"""Executes one transaction or query: the checks that every call has in common, then the contract's function.

Order of the checks: form and version of the intent, network, function, deadline, actor's key and status, signature,
first use of the intent id, the carrying gateway's identity and grant, the actor's role, the arguments.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.state import View, key, load, save, view_many
from flexrelay_schemas.canonical import CanonicalError, parse_exact
from flexrelay_schemas.did import Create
from flexrelay_schemas.intent import INTENT_DOMAIN, Intent, SignedIntent
from flexrelay_schemas.keys import verify

A = TypeVar("A", bound=BaseModel)
Result = Mapping[str, Any]

MAX_INTENT_BYTES: Final = 1_000_000
MAX_VOID_BYTES: Final = 1_340_000
"""Only the voiding of an intent is larger: it holds the whole intent, in base64url."""
BOOTSTRAP: Final = "network.bootstrap"
REGISTER: Final = "identity.register"
GRANT_GATEWAY: Final = "gateways.grant"
VOID: Final = "intents.void"
_UNREGISTERED: Final = frozenset({BOOTSTRAP, REGISTER})
_NETWORK: Final = key("network")
_NO_ROLES: Final[Mapping[str, frozenset[str]]] = MappingProxyType({})
_HEAD: Final = b'{"intent":'
_TAIL: Final = len(b',"signature":""}') + 86
"""What stands around the intent in its canonical wire form; the signature has 86 characters."""


class Caller(NamedTuple):
    """Who calls, after all common checks.

    `gateway` is the DID of the gateway that carries the intent, `org` that gateway's organisation. `roles` maps the
    roles that the transaction asks for and the actor holds to the markets they are granted for ("*" = all).
    """

    did: str
    kind: str
    controller: str
    org: str
    gateway: str
    network: View
    roles: Mapping[str, frozenset[str]] = _NO_ROLES

    def require_role(self, role: str, market: str) -> None:
        """Refused('role') unless the caller holds `role` for `market`."""
        markets = self.roles.get(role, frozenset())
        if "*" not in markets and market not in markets:
            raise Refused("role", f"{self.did} does not hold the role {role} for market {market}")


class Carried(NamedTuple):
    """An intent as it came, and the bytes that its actor has signed."""

    signed: SignedIntent
    message: bytes


@dataclass(frozen=True, slots=True)
class Transaction(Generic[A]):
    """One transaction type. `roles`: the caller holds at least one of them (empty: any active DID).

    `of_parties`: the function itself knows whose business it is, out of a time when they held the roles. Then who has
    lost a role since may call too: its issuer is often the other party, and would get out of every dispute otherwise.
    """

    name: str
    args: type[A]
    run: Callable[[ContractContext, Caller, A], Result]
    roles: tuple[str, ...] = ()
    of_parties: bool = False


@dataclass(frozen=True, slots=True)
class Query(Generic[A]):
    """A read that writes nothing and needs no signature."""

    name: str
    args: type[A]
    run: Callable[[ContractContext, A], Any]


def decode_intent(data: bytes) -> SignedIntent:
    """The intent in its wire form. Raises Refused('malformed' | 'unknown_version' | 'too_large')."""
    return carried_intent(data).signed


def carried_intent(data: bytes) -> Carried:
    """The intent out of its wire form, with what its actor has signed. Raises as `decode_intent`."""
    if len(data) > MAX_VOID_BYTES:
        raise _too_large(data)
    try:
        value, exact = parse_exact(data)
    except CanonicalError as error:
        if len(data) > MAX_INTENT_BYTES:
            raise _too_large(data) from None
        raise Refused("malformed", f"the intent is not canonical JSON: {error}") from None
    if isinstance(value, dict) and isinstance(value.get("intent"), dict):
        version = value["intent"].get("v")
        if version != 1 or version is True:
            raise Refused("unknown_version", f"intent version {version!r} is not known here; known: 1", "v")
    signed = _validate(SignedIntent, value, "malformed")
    if len(data) > MAX_INTENT_BYTES and signed.intent.function != VOID:
        raise _too_large(data)
    message = INTENT_DOMAIN + data[len(_HEAD) : -_TAIL] if exact else signed.intent.message()
    return Carried(signed, message)


def _too_large(data: bytes) -> Refused:
    return Refused("too_large", f"an intent has at most {MAX_INTENT_BYTES} bytes, this one {len(data)}")


def invoke(ctx: ContractContext, data: bytes, transactions: Mapping[str, Transaction[Any]]) -> Result:
    """Run the signed intent in `data` and return the function's result. Raises Refused."""
    carried = carried_intent(data)
    intent = carried.signed.intent
    transaction = transactions.get(intent.function)
    if transaction is None:
        raise Refused("unknown_function", f"there is no transaction {intent.function}", "function")
    if ctx.tx_time > intent.deadline:
        raise Refused(
            "expired", f"the deadline {intent.deadline} is before the transaction's {ctx.tx_time}", "deadline"
        )
    marker = intent_key(intent)
    if intent.function == BOOTSTRAP:
        caller = _bootstrap_caller(ctx, carried)
    else:
        caller = _caller(ctx, carried, transaction, marker)
    args = _validate(transaction.args, intent.args, "invalid_argument")
    result = transaction.run(ctx, caller, args)
    save(ctx, marker, {"status": "used", "tx_id": ctx.tx_id})
    return result


def query(ctx: ContractContext, name: str, args: Mapping[str, Any], queries: Mapping[str, Query[Any]]) -> Any:
    """Run a query and return its JSON value. Raises Refused."""
    found = queries.get(name)
    if found is None:
        raise Refused("unknown_function", f"there is no query {name}", "function")
    return found.run(ctx, _validate(found.args, dict(args), "invalid_argument"))


def intent_key(intent: Intent) -> str:
    """The key that marks an intent as used or void; reading it makes two uses conflict at commit."""
    return key("intent", intent.actor, intent.intent_id)


def registering_key(intent: Intent) -> str:
    """The Multikey with which an actor that is not on the ledger yet signs its registration. Raises Refused."""
    return _created(intent, intent.args).key


def verify_intent(carried: Carried, public_key: str) -> None:
    """Refused('signature') unless the intent is signed with this Multikey."""
    signed = carried.signed
    try:
        good = verify(public_key, signed.signature_bytes(), carried.message)
    except ValueError:
        good = False
    if not good:
        raise Refused("signature", f"the signature of intent {signed.intent.intent_id} is not its actor's", "signature")


def _bootstrap_caller(ctx: ContractContext, carried: Carried) -> Caller:
    if load(ctx, _NETWORK) is not None:
        raise Refused("already_bootstrapped", "the network has its genesis already")
    intent = carried.signed.intent
    operation = _created(intent, intent.args.get("operator"))
    verify_intent(carried, operation.key)
    if intent.args.get("network") != intent.network:
        raise Refused("wrong_network", "the intent and the genesis name different networks", "network")
    return Caller(intent.actor, "actor", "", ctx.creator.org, "", {})


def _created(intent: Intent, proven: Any) -> Create:
    """The create operation of an actor that is not on the ledger yet, out of {operation, proof}."""
    operation = proven.get("operation") if isinstance(proven, dict) else None
    create = _validate(Create, operation, "invalid_argument", "operation")
    if create.did() != intent.actor or intent.key_version != 1 or create.network != intent.network:
        raise Refused("did_mismatch", f"the create operation is not {intent.actor}'s", "operation")
    return create


def _caller(ctx: ContractContext, carried: Carried, transaction: Transaction[Any], marker: str) -> Caller:
    intent = carried.signed.intent
    names = [_NETWORK, key("did", intent.actor), marker, key("gateway_identity", ctx.creator.identity)]
    if transaction.roles:
        names += [key("grant", intent.actor, role) for role in transaction.roles]
    network, actor, used, carrier, *grants = view_many(ctx, names)
    if network is None:
        raise Refused("no_network", "the network has no genesis yet")
    if network["network"] != intent.network:
        raise Refused("wrong_network", f"this is network {network['network']}, not {intent.network}", "network")
    if carrier is None or carrier["org"] != ctx.creator.org:
        raise Refused("gateway_unknown", f"the transaction's creator is not a registered gateway of {ctx.creator.org}")
    gateway: str = carrier["gateway"]
    if actor is None:
        if intent.function not in _UNREGISTERED:
            raise Refused("unknown_did", f"{intent.actor} is not registered", "actor")
        create = _created(intent, intent.args)
        verify_intent(carried, create.key)
        kind, controller = create.kind, create.controller
    else:
        if actor["status"] != "active":
            raise Refused("did_inactive", f"{intent.actor} is {actor['status']}", "actor")
        if intent.key_version != actor["version"]:
            raise Refused("key_version", f"the current key version is {actor['version']}", "key_version")
        verify_intent(carried, actor["key"])
        kind, controller = actor["kind"], actor["controller"]
        _check_gateway(ctx, gateway, intent, controller)
    if used is not None:
        raise Refused("intent_used", f"intent {intent.intent_id} is {used['status']} in {used['tx_id']}", "intent_id")
    roles = _roles(ctx, transaction.roles, grants) if grants else _NO_ROLES
    if transaction.roles and not roles and not transaction.of_parties:
        wanted = " or ".join(transaction.roles)
        raise Refused("role", f"{intent.actor} does not hold the role {wanted}", "actor")
    return Caller(intent.actor, kind, controller, ctx.creator.org, gateway, network, roles)


def _check_gateway(ctx: ContractContext, gateway: str, intent: Intent, controller: str) -> None:
    """The gateway is active and carries its own intents or holds a grant from the actor's controller.

    The intent that gives this very gateway its grant needs none yet: an actor that has withdrawn its only gateway could
    never name another one otherwise.
    """
    owner = controller or intent.actor
    names = [key("did", gateway), key("gateway_grant", gateway, owner)]
    record, grant = view_many(ctx, names)
    if record is None or record["status"] != "active":
        raise Refused("gateway_inactive", f"gateway {gateway} is not active")
    granting = intent.function == GRANT_GATEWAY and intent.args.get("gateway") == gateway
    if gateway != intent.actor and not granting and (grant is None or grant["status"] != "active"):
        raise Refused("gateway_grant", f"gateway {gateway} holds no grant from {owner}")


def _roles(ctx: ContractContext, names: tuple[str, ...], grants: Sequence[View | None]) -> dict[str, frozenset[str]]:
    """Roles in force now: active and within their dates (wall-clock UTC ms)."""
    held = {name: markets_in_force(grant, ctx.tx_time) for name, grant in zip(names, grants, strict=True)}
    return {name: markets for name, markets in held.items() if markets}


def markets_in_force(grant: View | None, wall_ms: int) -> frozenset[str]:
    """The markets of a grant record's credentials (one per issuer) that are active and within their dates."""
    if grant is None:
        return frozenset()
    return frozenset(
        market
        for entry in (grant, *grant.get("others", ()))
        if entry["status"] == "active" and entry["nbf"] <= wall_ms < entry["exp"]
        for market in entry["markets"]
    )


M = TypeVar("M", bound=BaseModel)


def _validate(model: type[M], value: Any, code: str, where: str = "") -> M:
    try:
        valid: M = model.__pydantic_validator__.validate_python(value)  # what model_validate calls, in half its time
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in (*([where] if where else []), *first["loc"]))
        raise Refused(code, first["msg"], path) from None
    return valid
