"""Roles: who may accredit whom (trusted issuers), enrolment of role credentials, revocation.

Trusted issuers form a graph whose root is the network's operator: an accreditor passes a subset of what it is trusted
for itself. At enrolment and at every further accreditation the whole chain up to the operator must hold, so
withdrawing one accreditation stops everything below it from issuing. Grants enrolled before stay: they were good when
given, and whoever must go is revoked by name (`grants.revoke`, by the issuer or the operator); nothing is revoked
silently by a change far away in the graph.

One record per (subject, role). It holds the newest credential of one issuer at its top and those of other issuers in
`others`, so that an aggregator may hold its role from several system operators. Per issuer only a credential signed
after the last one (and after its revocation) is taken: an older one cannot be played back.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from flexrelay_contracts import didlog
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction, markets_in_force
from flexrelay_contracts.state import Record, announce, key, load, save, scan
from flexrelay_schemas.credentials import Market, Role, SignedRoleCredential, instant, verify_credential
from flexrelay_schemas.did import Did
from flexrelay_schemas.intent import WallMs
from flexrelay_schemas.model import Items, Model

MAX_CHAIN = 8
"""Longest chain of accreditations from the operator to an issuer."""
MAX_ISSUERS = 16
"""Most issuers of one (subject, role)."""


class Accredit(Model):
    """`subject` may issue these roles for these markets in [nbf, exp) of wall time."""

    subject: Did
    roles: Annotated[Items[Role], Field(min_length=1, max_length=16)]
    markets: Annotated[Items[Market], Field(min_length=1, max_length=64)]
    nbf: WallMs
    exp: WallMs


class Withdraw(Model):
    """`accreditor` empty: the caller's own accreditation."""

    subject: Did
    accreditor: Did | Literal[""] = ""


class Enrol(Model):
    credential: SignedRoleCredential


class Revoke(Model):
    """`issuer` empty: the caller's own; the operator names one, or "*" for all of them."""

    subject: Did
    role: Role
    issuer: Did | Literal["", "*"] = ""
    reason: Annotated[str, Field(max_length=200)] = ""


class BySubject(Model):
    subject: Did


def holds(ctx: ContractContext, did: str, role: str) -> frozenset[str]:
    """The markets for which `did` holds `role` at the transaction's time ("*" = all; empty: not at all)."""
    return markets_in_force(load(ctx, key("grant", did, role)), ctx.tx_time)


def trusted(ctx: ContractContext, operator: str, issuer: str, role: str, market: str) -> bool:
    """Whether an unbroken chain of accreditations leads from the operator to the issuer for (role, market) now.

    Walks the graph upwards level by level and looks at each issuer once, so that a dense graph costs no more than its
    edges.
    """
    level, seen = [issuer], {issuer}
    for _ in range(MAX_CHAIN + 1):
        above: list[str] = []
        for did in level:
            if did == operator:
                return True
            for accreditor in _accreditors(ctx, did, role, market):
                if accreditor not in seen:
                    seen.add(accreditor)
                    above.append(accreditor)
        level = above
    return False


def _accreditors(ctx: ContractContext, issuer: str, role: str, market: str) -> list[str]:
    """Who accredits this issuer for (role, market) at the transaction's time; none when the issuer is not active."""
    record = load(ctx, key("did", issuer))
    if record is None or record["status"] != "active":
        return []
    return [
        accreditor
        for (_, accreditor), item in scan(ctx, "accreditation", issuer)
        if item["status"] == "active"
        and item["nbf"] <= ctx.tx_time < item["exp"]
        and role in item["roles"]
        and ("*" in item["markets"] or market in item["markets"])
    ]


def _accredit(ctx: ContractContext, caller: Caller, args: Accredit) -> Result:
    if args.nbf >= args.exp:
        raise Refused("invalid_argument", "nbf is not before exp", "exp")
    if args.subject == caller.did:
        raise Refused("self_accreditation", "nobody accredits itself", "subject")
    if didlog.active(ctx, args.subject, "subject")["kind"] != "actor":
        raise Refused("kind", "only actors issue credentials", "subject")
    _require_trust(ctx, caller.network["operator"], caller.did, args.roles, args.markets)
    record = {
        "subject": args.subject,
        "accreditor": caller.did,
        "roles": sorted(set(args.roles)),
        "markets": sorted(set(args.markets)),
        "nbf": args.nbf,
        "exp": args.exp,
        "status": "active",
        "since_ms": ctx.tx_time,
    }
    save(ctx, key("accreditation", args.subject, caller.did), record)
    announce(ctx, "grant.accredited", {"subject": args.subject, "accreditor": caller.did, "roles": record["roles"]})
    return {"subject": args.subject}


def _withdraw(ctx: ContractContext, caller: Caller, args: Withdraw) -> Result:
    accreditor = args.accreditor or caller.did
    if caller.did not in (accreditor, caller.network["operator"]):
        raise Refused("not_issuer", "only the accreditor or the operator withdraws an accreditation", "accreditor")
    record = load(ctx, key("accreditation", args.subject, accreditor))
    if record is None or record["status"] != "active":
        raise Refused("not_accredited", f"{args.subject} holds no accreditation from {accreditor}", "subject")
    save(
        ctx,
        key("accreditation", args.subject, accreditor),
        record | {"status": "withdrawn", "since_ms": ctx.tx_time},
    )
    announce(ctx, "grant.accreditation_withdrawn", {"subject": args.subject, "accreditor": accreditor})
    return {"subject": args.subject}


def _enrol(ctx: ContractContext, caller: Caller, args: Enrol) -> Result:
    credential = args.credential
    subject = credential.credentialSubject
    if caller.did not in (subject.id, credential.issuer):
        raise Refused(
            "subject", "a credential is enrolled by its subject or its issuer", "credential.credentialSubject"
        )
    if subject.network != caller.network["network"]:
        raise Refused("wrong_network", f"this is network {caller.network['network']}", "credential.credentialSubject")
    nbf, exp = instant(credential.validFrom), instant(credential.validUntil)
    if not nbf <= ctx.tx_time < exp:
        raise Refused("credential_dates", "the credential is not valid at this time", "credential.validUntil")
    kind = didlog.active(ctx, subject.id, "credential.credentialSubject.id")["kind"]
    if kind != ("device" if subject.role == "device" else "actor"):
        raise Refused("kind", f"a {kind} does not hold the role {subject.role}", "credential.credentialSubject.role")
    _check_signature(ctx, credential)
    _require_trust(ctx, caller.network["operator"], credential.issuer, (subject.role,), subject.markets)
    created = instant(credential.proof.created)
    if created > ctx.tx_time:
        raise Refused("credential_dates", "the proof was created in the future", "credential.proof.created")
    entry = {
        "markets": sorted(set(subject.markets)),
        "status": "active",
        "nbf": nbf,
        "exp": exp,
        "issuer": credential.issuer,
        "credential_hash": credential.hash(),
        "created_ms": created,
    }
    name = key("grant", subject.id, subject.role)
    others = []
    for held in entries(load(ctx, name)):
        if held["issuer"] != credential.issuer:
            others.append(held)
        elif created <= held.get("revoked_ms", -1):
            raise Refused("credential_revoked", "the credential is older than its issuer's revocation", "credential")
        elif created <= held["created_ms"]:
            raise Refused("credential_superseded", "a newer credential of this issuer is enrolled", "credential")
    if len(others) >= MAX_ISSUERS:
        raise Refused("too_many", f"a role is held from at most {MAX_ISSUERS} issuers", "credential.issuer")
    _store(ctx, subject.id, subject.role, [entry, *others])
    announce(
        ctx,
        "grant.enrolled",
        {"subject": subject.id, "role": subject.role, "markets": entry["markets"], "issuer": credential.issuer},
    )
    return {"subject": subject.id, "role": subject.role, "credential_hash": entry["credential_hash"]}


def _revoke(ctx: ContractContext, caller: Caller, args: Revoke) -> Result:
    issuer = args.issuer or caller.did
    if caller.did not in (issuer, caller.network["operator"]):
        raise Refused("not_issuer", "only the issuer or the operator revokes a grant", "issuer")
    if caller.network["operator"] == args.subject and args.role == "market_operator":
        raise Refused("operator", "the network's operator is the root of trust", "subject")
    held = entries(load(ctx, key("grant", args.subject, args.role)))
    hit = [item for item in held if item["status"] == "active" and issuer in ("*", item["issuer"])]
    if not hit:
        raise Refused("not_granted", f"{args.subject} holds no role {args.role} from {issuer}", "subject")
    change = {"status": "revoked", "revoked_ms": ctx.tx_time, "reason": args.reason}
    _store(ctx, args.subject, args.role, [item | change if item in hit else item for item in held])
    issuers = [item["issuer"] for item in hit]
    announce(
        ctx,
        "grant.revoked",
        {"subject": args.subject, "role": args.role, "issuers": issuers, "reason": args.reason},
    )
    return {"subject": args.subject, "role": args.role, "issuers": issuers}


def entries(record: Record | None) -> list[Record]:
    """The credentials in a grant record, one per issuer."""
    if record is None:
        return []
    skipped = ("subject", "role", "others", "v")
    top = {name: value for name, value in record.items() if name not in skipped}
    return [top, *record.get("others", [])]


def _store(ctx: ContractContext, subject: str, role: str, held: list[Record]) -> None:
    top, *others = held
    save(ctx, key("grant", subject, role), {"subject": subject, "role": role, **top, "others": others})


def _check_signature(ctx: ContractContext, credential: SignedRoleCredential) -> None:
    """The issuer is active and signed with its current key: a key that was rotated away issues nothing more."""
    issuer = didlog.active(ctx, credential.issuer, "credential.issuer")
    try:
        version = credential.key_version()
    except ValueError as error:
        raise Refused("credential_key", str(error), "credential.proof.verificationMethod") from None
    if version != issuer["version"]:
        raise Refused(
            "credential_key",
            f"the issuer's current key version is {issuer['version']}",
            "credential.proof.verificationMethod",
        )
    if not verify_credential(credential, issuer["key"]):
        raise Refused("credential_signature", "the credential's proof does not verify", "credential.proof")


def _require_trust(
    ctx: ContractContext, operator: str, issuer: str, roles: tuple[str, ...], markets: tuple[str, ...]
) -> None:
    for role in roles:
        for market in markets:
            if not trusted(ctx, operator, issuer, role, market):
                raise Refused("untrusted_issuer", f"{issuer} is not trusted to give {role} for {market}", "issuer")


def _list(ctx: ContractContext, args: BySubject) -> list[Record]:
    return [record for _, record in scan(ctx, "grant", args.subject)]


def _accreditations(ctx: ContractContext, args: BySubject) -> list[Record]:
    return [record for _, record in scan(ctx, "accreditation", args.subject)]


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("grants.accredit", Accredit, _accredit),
    Transaction("grants.withdraw", Withdraw, _withdraw),
    Transaction("grants.enrol", Enrol, _enrol),
    Transaction("grants.revoke", Revoke, _revoke),
)
QUERIES: tuple[Query[Any], ...] = (
    Query("grants.list", BySubject, _list),
    Query("grants.accreditations", BySubject, _accreditations),
)
