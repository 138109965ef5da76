"""Closing intents for good: after an intent's deadline a gateway writes its marker as void.

Every envelope that carries the intent has read the marker, so an older one that is still held back dies of a conflict
from then on. Only with this marker committed does an outbox say *expired*.
"""

from typing import Annotated, Any, Final

from pydantic import StringConstraints

from flexrelay_contracts import didlog
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import (
    MAX_INTENT_BYTES,
    REGISTER,
    VOID,
    Caller,
    Carried,
    Query,
    Result,
    Transaction,
    carried_intent,
    intent_key,
    registering_key,
    verify_intent,
)
from flexrelay_contracts.state import Record, announce, key, load, save
from flexrelay_schemas.did import Did
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.intent import Intent, IntentId
from flexrelay_schemas.model import Model

_MAX_TEXT: Final = -(-MAX_INTENT_BYTES * 4 // 3)
"""base64url of the largest intent."""


class Void(Model):
    """`intent`: base64url of the signed intent's bytes, as they were to be carried."""

    intent: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=_MAX_TEXT)]


class Status(Model):
    actor: Did
    intent_id: IntentId


def _void(ctx: ContractContext, caller: Caller, args: Void) -> Result:
    if caller.kind != "gateway":
        raise Refused("kind", "intents are voided by gateways", "actor")
    carried = _decode(args.intent)
    intent = carried.signed.intent
    if intent.network != caller.network["network"]:
        raise Refused("wrong_network", f"this is network {caller.network['network']}", "intent")
    if ctx.tx_time <= intent.deadline:
        raise Refused("not_expired", f"the intent may still commit until {intent.deadline}", "intent")
    verify_intent(carried, _key(ctx, caller, intent))
    marker = intent_key(intent)
    used = load(ctx, marker)
    if used is not None:
        raise Refused("intent_used", f"intent {intent.intent_id} is {used['status']} in {used['tx_id']}", "intent")
    save(ctx, marker, {"status": "void", "tx_id": ctx.tx_id})
    announce(ctx, "intent.void", {"actor": intent.actor, "intent_id": intent.intent_id})
    return {"actor": intent.actor, "intent_id": intent.intent_id, "status": "void"}


def _decode(text: str) -> Carried:
    try:
        return carried_intent(b64u_decode(text))
    except ValueError as error:
        raise Refused("malformed", str(error), "intent") from None


def _key(ctx: ContractContext, caller: Caller, intent: Intent) -> str:
    """The Multikey of the named version, after checking that this gateway has, or had, the right to carry the intent.

    A withdrawn grant still lets a gateway close what it carried before. The registration of an actor that never came
    onto the ledger proves itself.
    """
    actor = load(ctx, key("did", intent.actor))
    if actor is None:
        if intent.function != REGISTER:
            raise Refused("unknown_did", f"{intent.actor} is not registered", "intent")
        return registering_key(intent)
    owner = actor["controller"] or intent.actor
    carried = load(ctx, key("gateway_grant", caller.did, owner))
    if intent.actor != caller.did and carried is None and intent.function != REGISTER:
        raise Refused("gateway_grant", f"gateway {caller.did} never held a grant from {owner}", "intent")
    return str(didlog.key_at(ctx, intent.actor, intent.key_version)["key"])


def _status(ctx: ContractContext, args: Status) -> Record:
    """{status: 'open' | 'used' | 'void', tx_id}."""
    record = load(ctx, key("intent", args.actor, args.intent_id))
    if record is None:
        return {"status": "open", "tx_id": ""}
    return {"status": record["status"], "tx_id": record["tx_id"]}


TRANSACTIONS: tuple[Transaction[Any], ...] = (Transaction(VOID, Void, _void),)
QUERIES: tuple[Query[Any], ...] = (Query("intents.status", Status, _status),)
