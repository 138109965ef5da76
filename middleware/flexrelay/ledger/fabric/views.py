"""A block as people see it: the same keys as on the embedded ledger, values as text where they are text."""

import json
from collections.abc import Collection
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric.blocks import Item, events_of, executed, items_of
from flexrelay.ledger.fabric.errors import Untrusted
from flexrelay.ledger.fabric.messages import (
    CONFIG,
    ENDORSER_TRANSACTION,
    ChaincodeActionPayload,
    ChaincodeInvocationSpec,
    ChaincodeProposalPayload,
    HashedRWSet,
    KVRWSet,
    Payload,
    SerializedIdentity,
    SignatureHeader,
    Transaction,
    TxReadWriteSet,
)
from flexrelay.ledger.fabric.msp import Trust
from flexrelay.ledger.fabric.proposal import check_endorsements
from flexrelay.ledger.port import BlockView, Validation
from flexrelay_schemas.keys import multikey

EXECUTED = "executed"
UNPROVED = "signature not proved"


def block_view(block: Any, own_hash: bytes, trust: Trust, chaincodes: Collection[str]) -> BlockView:
    transactions = [
        {"validation": item.validation.value, **_shown(item, trust, chaincodes)} for item in items_of(block)
    ]
    return BlockView(block.header.number, block.header.previous_hash.hex(), own_hash.hex(), transactions)


def _shown(item: Item, trust: Trust, chaincodes: Collection[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "tx_id": item.tx_id,
        "timestamp": item.timestamp,
        "creator": ["", ""],
        "function": {CONFIG: "channel configuration", ENDORSER_TRANSACTION: ""}.get(item.kind, "unreadable"),
        "chaincode": "",
        "intent": "",
        "result": None,
        "orgs": [],
        "reads": [],
        "ranges": [],
        "writes": [],
        "policies": [],
        "private_reads": [],
        "private": [],
        "events": [],
    }
    try:
        shown.update(_of_payload(item, trust, chaincodes))
    except (DecodeError, IndexError) as error:
        shown["function"] = f"unreadable: {error}"
    return shown


def _of_payload(item: Item, trust: Trust, chaincodes: Collection[str]) -> dict[str, Any]:
    outer = Payload.FromString(item.payload)
    creator = SerializedIdentity.FromString(SignatureHeader.FromString(outer.header.signature_header).creator)
    found: dict[str, Any] = {"creator": [creator.mspid, _key(creator.id_bytes)]}
    if item.kind != ENDORSER_TRANSACTION:
        return found
    action = ChaincodeActionPayload.FromString(Transaction.FromString(outer.data).actions[0].payload)
    proposal = ChaincodeProposalPayload.FromString(action.chaincode_proposal_payload)
    spec = ChaincodeInvocationSpec.FromString(proposal.input).chaincode_spec
    args = list(spec.input.args)
    found["chaincode"] = spec.chaincode_id.name
    found["intent"] = _text(args[1]) if len(args) == 2 else ""
    if isinstance(found["intent"], dict) and isinstance(found["intent"].get("intent"), dict):
        found["function"] = found["intent"]["intent"].get("function", "")
    else:
        found["function"] = args[0].decode(errors="replace") if args else ""
    result = executed(action)
    found["result"] = _text(result.response.payload)
    found["orgs"] = _endorsers(action.action, trust, item.tx_id)
    found.update(_footprint(result.results))
    if item.validation is Validation.VALID:
        events = events_of(action, chaincodes, item.tx_id)
        found["events"] = [[event.name, _text(event.payload)] for event in events]
    return found


def _key(pem: bytes) -> str:
    """The Multikey of a certificate's key, "" when there is none."""
    try:
        public = x509.load_pem_x509_certificate(pem).public_key()
        return multikey(public) if isinstance(public, ec.EllipticCurvePublicKey) else ""
    except ValueError:
        return ""


def _endorsers(action: Any, trust: Trust, tx_id: str) -> list[list[str]]:
    """[organisation, how]: executed, when the endorsement's signature is proved."""
    try:
        return [[org, EXECUTED] for org in check_endorsements(action, trust, tx_id)]
    except Untrusted:
        names = {SerializedIdentity.FromString(item.endorser).mspid for item in action.endorsements}
        return [[name, UNPROVED] for name in sorted(names)]


def _footprint(results: bytes) -> dict[str, Any]:
    """What was read and written, of all namespaces but the lifecycle's own. Versions are [block, transaction]."""
    found: dict[str, list[Any]] = {
        name: [] for name in ("reads", "ranges", "writes", "policies", "private_reads", "private")
    }
    for space in TxReadWriteSet.FromString(results).ns_rwset:
        if space.namespace == "_lifecycle":
            continue
        public = KVRWSet.FromString(space.rwset)
        found["reads"] += [[item.key, *_version(item)] for item in public.reads]
        found["ranges"] += [[item.start_key, item.end_key, item.itr_exhausted] for item in public.range_queries_info]
        found["writes"] += [[item.key, None if item.is_delete else _text(item.value)] for item in public.writes]
        found["policies"] += [[item.key, [entry.name for entry in item.entries]] for item in public.metadata_writes]
        for collection in space.collection_hashed_rwset:
            hashed = HashedRWSet.FromString(collection.hashed_rwset)
            name = collection.collection_name
            found["private_reads"] += [[name, item.key_hash.hex(), *_version(item)] for item in hashed.hashed_reads]
            found["private"] += [
                [name, item.key_hash.hex(), None if item.is_delete or item.is_purge else item.value_hash.hex()]
                for item in hashed.hashed_writes
            ]
    return found


def _version(item: Any) -> list[int]:
    return [item.version.block_num, item.version.tx_num] if item.HasField("version") else []


def _text(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data.decode(errors="backslashreplace")
