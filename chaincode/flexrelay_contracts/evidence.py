"""Evidence: roots that gateways anchor, and the check that a reading stood under one of them.

One anchor holds the root over many windows of one organisation. It is written once; the moment of its transaction, in
market time, says whether it was there in time. `included` checks a reading's two paths, that it was not anchored before
it was observed, its signature, and of a reading that its device did not sign, that the gateway whose word it is was
entrusted with the device: that it held, when the anchor came, the grant of the device's controller, or of the system
operator of the connection that the device was behind.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from flexrelay_contracts import didlog, masterdata
from flexrelay_contracts.calendar import dates_of
from flexrelay_contracts.clock import network_record, now
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.gateways import OrgName, held_grant, only_entrusted_attest
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.rules import merkle
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce, key, load, need, save, scan
from flexrelay_schemas.did import Did, Hash
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.evidence import AnchorId, InclusionProof, Path, Window
from flexrelay_schemas.intent import WallMs
from flexrelay_schemas.keys import verify
from flexrelay_schemas.model import Model
from flexrelay_schemas.quality import Provenance
from flexrelay_schemas.reading import (
    FUTURE_TOLERANCE_MS,
    AnchoredAttestation,
    Attestation,
    Attested,
    Evidence,
    Reading,
    SignedAttestation,
    SignedReading,
    parse_evidence,
)


class Anchor(Model):
    """`windows` leaves in the anchored tree, over `leaves` readings in all, observed in [first_ms, last_ms]."""

    anchor_id: AnchorId
    root: Hash
    windows: Annotated[int, Field(ge=1, le=2**40)]
    leaves: Annotated[int, Field(ge=1, le=2**40)]
    first_ms: WallMs
    last_ms: WallMs


class Show(Model):
    org: OrgName
    anchor_id: AnchorId


class ByOrg(Model):
    org: OrgName


class Check(Model):
    """`before`: market time by which the anchor must have been there; 0: any."""

    proof: InclusionProof
    before: WallMs = 0


class Attester(Model):
    """Whose word a reading under an anchor is: `gateway`'s, or that of the gateway that anchored it (empty)."""

    org: OrgName
    anchor_id: AnchorId
    device: Did
    observed_at: WallMs
    gateway: Did | Literal[""] = ""


@dataclass(frozen=True, slots=True)
class Included:
    """A reading whose evidence holds. `signer` is the device's DID, or the gateway's that attested it."""

    reading: Reading | Attested
    provenance: Provenance
    signer: str
    window: Window
    org: str
    anchor: Record

    @property
    def did(self) -> str:
        return self.reading.did

    @property
    def observed_at(self) -> int:
        return self.reading.observed_at

    @property
    def registers(self) -> dict[str, int]:
        return self.reading.registers

    @property
    def anchored_at(self) -> int:
        """Market time of the anchor's transaction."""
        return int(self.anchor["market_ms"])


def included(ctx: ContractContext, proof: InclusionProof, connection: str = "") -> Included:
    """The reading that the proof shows. Raises Refused('not_anchored' | 'inclusion' | 'malformed' |
    'anchored_too_early' | 'signature' | 'key_not_valid_then' | 'not_entrusted' | 'device_not_counted').

    `connection`: the one that is known to be measured by the device, whose operator may have entrusted the gateway;
    empty: by the master data.
    """
    anchor = _anchor_of(ctx, proof.org, proof.anchor_id)
    payload = _decode(proof.payload, "payload")
    leaf = merkle.leaf_hash(_decode(proof.salt, "salt"), payload)
    _check_path(leaf, proof.in_window, proof.window.leaves, proof.window.root, "in_window")
    _check_path(proof.window.leaf_hash(), proof.in_anchor, anchor["windows"], anchor["root"], "in_anchor")
    document, signature = _parse(payload)
    reading = document.reading if isinstance(document, SignedReading) else document.attestation
    if reading.did != proof.window.device:
        raise Refused("malformed", "the window is another device's", "window.device")
    network = network_record(ctx)["network"]
    if reading.network != network:
        raise Refused("malformed", f"the reading is from network {reading.network}, this is {network}", "payload")
    _check_time(reading.observed_at, anchor)
    match document:
        case SignedReading():
            signer, provenance = reading.did, Provenance.METER_SIGNED
            _check_signature(ctx, document.reading, signer, signature, reading.observed_at)
        case SignedAttestation():
            signer, provenance = document.attestation.gateway, Provenance.GATEWAY_ATTESTED
            _check_attester(ctx, signer, proof.org)
            _check_signature(ctx, document.attestation, signer, signature, anchor["market_ms"])
        case AnchoredAttestation():  # the ledger took the anchor only with that gateway's signature over its root
            signer, provenance = anchor["gateway"], Provenance.GATEWAY_ATTESTED
    if provenance is Provenance.GATEWAY_ATTESTED:
        entrusting = _entrusting(ctx, reading.did, reading.observed_at, connection)
        _check_entrusted(ctx, signer, reading.did, entrusting, anchor)
        _check_counted(ctx, reading)
    return Included(reading, provenance, signer, proof.window, proof.org, anchor)


def anchored_before(found: Included, market_ms: int) -> bool:
    """Whether the anchor stood on the ledger before this instant of market time."""
    return found.anchored_at < market_ms


def _anchor(ctx: ContractContext, caller: Caller, args: Anchor) -> Result:
    if caller.kind != "gateway":
        raise Refused("kind", "only gateways anchor", "actor")
    if caller.did != caller.gateway:
        raise Refused("gateway_unknown", "a gateway anchors under its own organisation only", "actor")
    if args.first_ms > args.last_ms:
        raise Refused("invalid_argument", "first_ms is after last_ms", "last_ms")
    if args.leaves < args.windows:
        raise Refused("invalid_argument", "every window has at least one leaf", "leaves")
    name = key("anchor", caller.org, args.anchor_id)
    if load(ctx, name) is not None:
        raise Refused("anchor_exists", f"{caller.org} has anchored {args.anchor_id} already", "anchor_id")
    at = now(ctx)
    record = args.model_dump() | {
        "org": caller.org,
        "gateway": caller.did,
        "tx_id": ctx.tx_id,
        "wall_ms": at.wall_ms,
        "market_ms": at.market_ms,
    }
    save(ctx, name, record)
    announce(ctx, "evidence.anchored", {"org": caller.org, "anchor_id": args.anchor_id, "root": args.root})
    return {"org": caller.org, "anchor_id": args.anchor_id, "market_ms": at.market_ms}


def _anchor_of(ctx: ContractContext, org: str, anchor_id: str) -> Record:
    return need(ctx, key("anchor", org, anchor_id), "not_anchored", f"{org} has no anchor {anchor_id}", "anchor_id")


def _decode(text: str, field: str) -> bytes:
    try:
        return b64u_decode(text)
    except ValueError as error:
        raise Refused("malformed", str(error), field) from None


def _check_path(leaf: bytes, path: Path, size: int, root: str, field: str) -> None:
    hashes = [bytes.fromhex(item) for item in path.hashes]
    if path.size != size or not merkle.verify(leaf, path.index, path.size, hashes, bytes.fromhex(root)):
        raise Refused("inclusion", "the path does not lead to the root", field)


def _parse(payload: bytes) -> tuple[Evidence, bytes]:
    """The document in the evidence bytes and its signature (none: the anchor's is the one)."""
    try:
        document = parse_evidence(payload)
        return document, b"" if isinstance(document, AnchoredAttestation) else b64u_decode(document.signature)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(str(part) for part in ("payload", *first["loc"]))
        raise Refused("malformed", first["msg"], path) from None
    except ValueError as error:
        raise Refused("malformed", f"the payload is no signed reading: {error}", "payload") from None


def _check_attester(ctx: ContractContext, gateway: str, org: str) -> None:
    record = load(ctx, key("gateway", gateway))
    if record is None or record["org"] != org:
        raise Refused("malformed", f"{gateway} is not a gateway of {org}", "payload.attestation.gateway")


def _check_time(observed_at: int, anchor: Record) -> None:
    """Nobody knows a reading before its time; a device's clock may be as far ahead as a gateway lets it."""
    latest = anchor["market_ms"] + FUTURE_TOLERANCE_MS
    if observed_at > latest:
        message = f"observed at {observed_at}, but anchored at {anchor['market_ms']} already (market time)"
        raise Refused("anchored_too_early", message, "payload.observed_at")


def _check_entrusted(
    ctx: ContractContext, gateway: str, device: str, entrusting: Iterable[str], anchor: Record
) -> None:
    if not only_entrusted_attest(network_record(ctx)):
        return
    if not any(held_grant(ctx, gateway, actor, anchor["wall_ms"]) for actor in entrusting):
        message = f"when it was anchored, {gateway} held no grant of the controller or the system operator of {device}"
        raise Refused("not_entrusted", message, "org")


def _check_counted(ctx: ContractContext, reading: Reading | Attested) -> None:
    """A device that was suspended or deactivated then is not attested past that, as its signature would not count."""
    if only_entrusted_attest(network_record(ctx)) and not didlog.counted_at(ctx, reading.did, reading.observed_at):
        message = (
            f"{reading.did} was not registered, or suspended or deactivated, at {reading.observed_at} (market time)"
        )
        raise Refused("device_not_counted", message, "payload.observed_at")


def _entrusting(ctx: ContractContext, device: str, observed_at: int, connection: str = "") -> Iterator[str]:
    """Who may entrust a gateway with the device's readings of an instant.

    Behind how many connections a device ever was, any DSO may write: a dispute names the one it is about.
    """
    yield didlog.did_record(ctx, device, "window.device")["controller"]
    for date in dates_of(ctx, observed_at):
        if not connection:
            yield from masterdata.operators_of(ctx, device, date)
        elif place := masterdata.at(ctx, "connection", connection, date):
            yield place["dso"]


def _check_signature(
    ctx: ContractContext, reading: Reading | Attestation, signer: str, signature: bytes, last_ms: int
) -> None:
    """The key must have been valid at some instant between the observation and `last_ms` (market time): a device signs
    when it observes, a gateway attests until the anchor."""
    versioned = load(ctx, didlog.key_name(signer, reading.key_version))
    if versioned is None:
        raise Refused("key_not_valid_then", f"{signer} has no key version {reading.key_version}", "payload.key_version")
    if not verify(versioned["key"], signature, reading.message()):
        raise Refused("signature", f"the signature is not {signer}'s", "payload.signature")
    if not didlog.valid_within(versioned, reading.observed_at, last_ms):
        raise Refused(
            "key_not_valid_then",
            f"key version {reading.key_version} of {signer} was not valid at {reading.observed_at}",
            "payload.observed_at",
        )


def _show(ctx: ContractContext, args: Show) -> Record:
    return _anchor_of(ctx, args.org, args.anchor_id)


def _list(ctx: ContractContext, args: ByOrg) -> list[Record]:
    return [record for _, record in scan(ctx, "anchor", args.org)]


def _check(ctx: ContractContext, args: Check) -> Record:
    """What a proof shows; `in_time` is None when no instant was named."""
    found = included(ctx, args.proof)
    return {
        "did": found.did,
        "observed_at": found.observed_at,
        "registers": dict(found.registers),
        "provenance": int(found.provenance),
        "signer": found.signer,
        "org": found.org,
        "anchor_id": found.anchor["anchor_id"],
        "anchored_at": found.anchored_at,
        "in_time": anchored_before(found, args.before) if args.before else None,
    }


def _attester(ctx: ContractContext, args: Attester) -> Record:
    """{gateway, counts, code, message}: whether that gateway's word for the device counts under the anchor, or why not.
    The ledger is told of no reading's value."""
    anchor = _anchor_of(ctx, args.org, args.anchor_id)
    gateway = args.gateway or anchor["gateway"]
    try:
        _check_entrusted(ctx, gateway, args.device, _entrusting(ctx, args.device, args.observed_at), anchor)
    except Refused as refused:
        return {"gateway": gateway, "counts": False, "code": refused.code, "message": refused.message}
    return {"gateway": gateway, "counts": True, "code": "", "message": ""}


TRANSACTIONS: tuple[Transaction[Any], ...] = (Transaction("evidence.anchor", Anchor, _anchor),)
QUERIES: tuple[Query[Any], ...] = (
    Query("evidence.show", Show, _show),
    Query("evidence.list", ByOrg, _list),
    Query("evidence.check", Check, _check),
    Query("evidence.attester", Attester, _attester),
)
