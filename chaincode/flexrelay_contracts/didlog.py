"""The log of each DID on the ledger: its current record and one record per key version with the times it was valid.

key("did", did): who it is, its status, its current key. key("did_key", did, version): the operation that introduced the
key, its proof, and `spans`, the half-open intervals [from, to) in which a signature with this key counts; `to` is
null while the span is open. Spans are kept in wall time (intents, credentials) and in market time (readings).
"""

from typing import Any

from flexrelay_contracts.clock import Now
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.state import Record, key, load, need, save, scan
from flexrelay_schemas.did import Create, Rotate, key_hash, operation_hash, operation_message
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.keys import public_key, verify


def did_record(ctx: ContractContext, did: str, field: str = "did") -> Record:
    """The current record of a DID. Refused('unknown_did')."""
    return need(ctx, key("did", did), "unknown_did", f"{did} is not registered", field)


def active(ctx: ContractContext, did: str, field: str = "did") -> Record:
    """The record of a DID that is active. Refused('unknown_did' | 'did_inactive')."""
    record = did_record(ctx, did, field)
    if record["status"] != "active":
        raise Refused("did_inactive", f"{did} is {record['status']}", field)
    return record


def check_proof(operation: Create | Rotate, proof: str) -> None:
    """Refused('proof') unless the key that the operation names signed it."""
    try:
        good = verify(operation.key, b64u_decode(proof), operation_message(operation))
    except ValueError:
        good = False
    if not good:
        raise Refused("proof", "the operation is not signed with the key that it names", "proof")


def create(ctx: ContractContext, operation: Create, proof: str, now: Now, org: str) -> Record:
    """Open the log of a new DID. Refused('proof' | 'invalid_argument' | 'did_exists')."""
    check_proof(operation, proof)
    _check_next(operation.key, operation.next_key_hash)
    did = operation.did()
    if load(ctx, key("did", did)) is not None:
        raise Refused("did_exists", f"{did} is registered already", "operation")
    record = {
        "did": did,
        "kind": operation.kind,
        "controller": operation.controller,
        "status": "active",
        "version": 1,
        "key": operation.key,
        "next_key_hash": operation.next_key_hash,
        "last_hash": operation_hash(operation),
        "org": org,
        "created_ms": now.wall_ms,
    }
    save(ctx, key("did", did), record)
    _save_key(ctx, did, 1, operation, proof, now, [_open(now)])
    return record


def rotate(ctx: ContractContext, operation: Rotate, proof: str, now: Now) -> Record:
    """Append a rotation. Refused('deactivated' | 'version' | 'previous' | 'pre_rotation' | 'proof' | …).

    A suspended DID may rotate; its new key becomes valid when it is reinstated.
    """
    record = did_record(ctx, operation.did, "operation.did")
    if record["status"] == "deactivated":
        raise Refused("deactivated", f"{operation.did} is deactivated for good", "operation.did")
    if operation.version != record["version"] + 1:
        raise Refused("version", f"the next version is {record['version'] + 1}", "operation.version")
    if operation.previous != record["last_hash"]:
        raise Refused("previous", "the operation does not name the hash of the one before", "operation.previous")
    if key_hash(operation.key) != record["next_key_hash"]:
        raise Refused("pre_rotation", "the key is not the one that was committed to", "operation.key")
    _check_next(operation.key, operation.next_key_hash)
    check_proof(operation, proof)
    is_active = record["status"] == "active"
    if is_active:
        _close_span(ctx, operation.did, record["version"], now)
    record |= {
        "version": operation.version,
        "key": operation.key,
        "next_key_hash": operation.next_key_hash,
        "last_hash": operation_hash(operation),
    }
    save(ctx, key("did", operation.did), record)
    _save_key(ctx, operation.did, operation.version, operation, proof, now, [_open(now)] if is_active else [])
    return record


def end(ctx: ContractContext, record: Record, status: str, reason: str, now: Now, *, keep: bool = False) -> Record:
    """Close the current key's span and set the status ('suspended' | 'deactivated'). `keep`: of a DID that was
    suspended already, the record goes on naming the version that was the last to count, whatever it was rotated to."""
    if record["status"] == "active":
        _close_span(ctx, record["did"], record["version"], now)
    changed = record | {
        "status": status,
        "reason": reason,
        "ended_ms": now.wall_ms,
        "ended_version": record["ended_version"] if keep and record["status"] != "active" else record["version"],
    }
    save(ctx, key("did", record["did"]), changed)
    return changed


def reopen(ctx: ContractContext, record: Record, now: Now) -> Record:
    """Make a suspended DID active again with its current key."""
    changed = {name: value for name, value in record.items() if name not in ("reason", "ended_ms", "ended_version")}
    changed["status"] = "active"
    save(ctx, key("did", record["did"]), changed)
    versioned = key_at(ctx, record["did"], record["version"])
    save(ctx, key_name(record["did"], record["version"]), versioned | {"spans": [*versioned["spans"], _open(now)]})
    return changed


def key_at(ctx: ContractContext, did: str, version: int) -> Record:
    """The record of one key version: {key, operation, proof, hash, spans…}. Refused('unknown_key_version')."""
    return need(
        ctx, key_name(did, version), "unknown_key_version", f"{did} has no key version {version}", "key_version"
    )


def valid_at(key_record: Record, market_ms: int) -> bool:
    """Whether a signature made at this market time counts."""
    return valid_within(key_record, market_ms, market_ms)


def valid_within(key_record: Record, first_market_ms: int, last_market_ms: int) -> bool:
    """Whether the key was valid at some instant of [first, last] (market time)."""
    return any(
        span["market_from"] <= last_market_ms and (span["market_to"] is None or first_market_ms < span["market_to"])
        for span in key_record["spans"]
    )


def counted_at(ctx: ContractContext, did: str, market_ms: int) -> bool:
    """Whether the DID was registered by this market time, and has not been suspended or deactivated since before it.

    A suspension that was lifted is passed over: a few look-ups tell, however often the key was rotated.
    """
    if market_ms < key_at(ctx, did, 1)["market_ms"]:
        return False
    record = did_record(ctx, did)
    if record["status"] == "active":
        return True
    ended = key_at(ctx, did, record["ended_version"])
    last: int = ended["spans"][-1]["market_to"] if ended["spans"] else ended["market_ms"]
    return market_ms < last


def key_history(ctx: ContractContext, did: str) -> list[Record]:
    """All key versions of a DID in order."""
    return [record for _, record in scan(ctx, "did_key", did)]


def _check_next(current: str, next_key_hash: str) -> None:
    try:
        public_key(current)
    except ValueError as error:
        raise Refused("invalid_argument", str(error), "operation.key") from None
    if key_hash(current) == next_key_hash:
        raise Refused("pre_rotation", "the next key must be another one than the current", "operation.next_key_hash")


def _open(now: Now) -> Record:
    return {"wall_from": now.wall_ms, "wall_to": None, "market_from": now.market_ms, "market_to": None}


def _close_span(ctx: ContractContext, did: str, version: int, now: Now) -> None:
    record = key_at(ctx, did, version)
    *earlier, last = record["spans"]
    closed = last | {"wall_to": now.wall_ms, "market_to": now.market_ms}
    save(ctx, key_name(did, version), record | {"spans": [*earlier, closed]})


def key_name(did: str, version: int) -> str:
    """The ledger key of one key version's record."""
    return key("did_key", did, f"{version:07d}")


def _save_key(
    ctx: ContractContext,
    did: str,
    version: int,
    operation: Create | Rotate,
    proof: str,
    now: Now,
    spans: list[dict[str, Any]],
) -> None:
    record = {
        "did": did,
        "version": version,
        "key": operation.key,
        "operation": operation.model_dump(),
        "proof": proof,
        "hash": operation_hash(operation),
        "tx_id": ctx.tx_id,
        "wall_ms": now.wall_ms,
        "market_ms": now.market_ms,
        "spans": spans,
    }
    save(ctx, key_name(did, version), record)
