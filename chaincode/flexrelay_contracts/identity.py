"""Identities: registration, rotation with pre-rotated keys, deactivation, suspension, and their DID documents.

An actor registers itself; its controller (an actor) registers a device; gateways come through `gateways.register`.
A rotation proves itself (it is signed with the key that the log committed to), so any active identity may carry it: an
actor that lost its current key, or whose current key was stolen, is not locked out.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from flexrelay_contracts import didlog
from flexrelay_contracts.clock import Now, now
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.didlog import key_at, valid_at
from flexrelay_contracts.gateways import gateway_record, grant_gateway, only_entrusted_attest
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import Record, announce
from flexrelay_schemas.did import Create, Did, Rotate
from flexrelay_schemas.did_document import did_document
from flexrelay_schemas.intent import Signature
from flexrelay_schemas.model import Model

Reason = Annotated[str, Field(max_length=200)]


class Register(Model):
    """`gateway` may carry the new actor's intents from now on; empty: none yet (see `gateways.grant`)."""

    operation: Create
    proof: Signature
    gateway: Did | Literal[""] = ""


class RegisterDevice(Model):
    operation: Create
    proof: Signature


class RotateKey(Model):
    operation: Rotate
    proof: Signature


class Deactivate(Model):
    did: Did
    reason: Reason = ""


class Reinstate(Model):
    did: Did


class ByDid(Model):
    did: Did


class Resolve(Model):
    """`version` 0 is the current one."""

    did: Did
    version: Annotated[int, Field(ge=0)] = 0


def suspend(ctx: ContractContext, did: str, reason: str) -> None:
    """Suspend a DID (equivocation): its signatures stop to count now. For contracts; nothing when it is not active."""
    record = didlog.did_record(ctx, did)
    if record["status"] != "active":
        return
    at = now(ctx)
    didlog.end(ctx, record, "suspended", reason, at)
    payload = {"did": did, "kind": record["kind"], "reason": reason, "market_ms": at.market_ms}
    announce(ctx, "identity.suspended", payload)


def announce_registered(ctx: ContractContext, record: Record) -> None:
    """The event from which gateways learn a new identity and its key; like all events about identities with the market
    time from which it counts."""
    announce(ctx, "identity.registered", _key_facts(record, now(ctx)))


def _key_facts(record: Record, at: Now) -> Record:
    names = ("did", "kind", "controller", "version", "key", "org")
    return {name: record[name] for name in names} | {"market_ms": at.market_ms}


def _register(ctx: ContractContext, caller: Caller, args: Register) -> Result:
    if args.operation.kind != "actor" or args.operation.controller:
        raise Refused("kind", "only actors without a controller register themselves", "operation.kind")
    if args.operation.did() != caller.did:
        raise Refused("did_mismatch", "the create operation is another identity's", "operation")
    didlog.active(ctx, caller.gateway, "gateway")
    record = didlog.create(ctx, args.operation, args.proof, now(ctx), caller.org)
    if args.gateway:
        gateway_record(ctx, args.gateway)
        grant_gateway(ctx, args.gateway, caller.did)
    announce_registered(ctx, record)
    return {"did": caller.did}


def _register_device(ctx: ContractContext, caller: Caller, args: RegisterDevice) -> Result:
    operation = args.operation
    if caller.kind != "actor":
        raise Refused("kind", "devices are registered by an actor", "actor")
    if operation.kind != "device":
        raise Refused("kind", "the operation does not create a device", "operation.kind")
    if operation.controller != caller.did:
        raise Refused("not_controller", "the device names another controller", "operation.controller")
    if operation.network != caller.network["network"]:
        raise Refused("wrong_network", f"this is network {caller.network['network']}", "operation.network")
    record = didlog.create(ctx, operation, args.proof, now(ctx), caller.org)
    announce_registered(ctx, record)
    return {"did": record["did"]}


def _rotate(ctx: ContractContext, caller: Caller, args: RotateKey) -> Result:
    at = now(ctx)
    record = didlog.rotate(ctx, args.operation, args.proof, at)
    names = ("did", "kind", "version", "key")
    announce(ctx, "identity.rotated", {name: record[name] for name in names} | {"market_ms": at.market_ms})
    return {"did": record["did"], "version": record["version"]}


def _deactivate(ctx: ContractContext, caller: Caller, args: Deactivate) -> Result:
    record = didlog.did_record(ctx, args.did)
    if caller.did not in (record["did"], record["controller"]):
        raise Refused("not_controller", "only the identity itself or its controller deactivates it", "did")
    if record["status"] == "deactivated":
        raise Refused("deactivated", f"{args.did} is deactivated already", "did")
    if record["did"] == caller.network["operator"]:
        raise Refused("operator", "the network's operator is the root of trust and cannot be deactivated", "did")
    at = now(ctx)
    didlog.end(ctx, record, "deactivated", args.reason, at, keep=only_entrusted_attest(caller.network))
    payload = {"did": args.did, "kind": record["kind"], "reason": args.reason, "market_ms": at.market_ms}
    announce(ctx, "identity.deactivated", payload)
    return {"did": args.did}


def _reinstate(ctx: ContractContext, caller: Caller, args: Reinstate) -> Result:
    """The operator's half; the other half is the holder's rotation to the pre-rotated key since the suspension."""
    caller.require_role("market_operator", "*")
    record = didlog.did_record(ctx, args.did)
    if record["status"] != "suspended":
        raise Refused("not_suspended", f"{args.did} is {record['status']}", "did")
    if record["version"] == record["ended_version"]:
        raise Refused("rotation_needed", "the identity must rotate its key before it is reinstated", "did")
    at = now(ctx)
    announce(ctx, "identity.reinstated", _key_facts(didlog.reopen(ctx, record, at), at))
    return {"did": args.did}


def _resolve(ctx: ContractContext, args: Resolve) -> Any:
    record = didlog.did_record(ctx, args.did)
    history = didlog.key_history(ctx, args.did)
    version = args.version or record["version"]
    if version > len(history):
        raise Refused("unknown_key_version", f"{args.did} has no key version {version}", "version")
    return did_document(record, history[version - 1], history[-1])


def _show(ctx: ContractContext, args: ByDid) -> Record:
    return didlog.did_record(ctx, args.did)


def _log(ctx: ContractContext, args: ByDid) -> list[Record]:
    didlog.did_record(ctx, args.did)
    return didlog.key_history(ctx, args.did)


TRANSACTIONS: tuple[Transaction[Any], ...] = (
    Transaction("identity.register", Register, _register),
    Transaction("identity.register_device", RegisterDevice, _register_device),
    Transaction("identity.rotate", RotateKey, _rotate),
    Transaction("identity.deactivate", Deactivate, _deactivate),
    Transaction("identity.reinstate", Reinstate, _reinstate, roles=("market_operator",)),
)
QUERIES: tuple[Query[Any], ...] = (
    Query("identity.resolve", Resolve, _resolve),
    Query("identity.show", ByDid, _show),
    Query("identity.log", ByDid, _log),
)

__all__ = ["QUERIES", "TRANSACTIONS", "announce_registered", "key_at", "suspend", "valid_at"]
