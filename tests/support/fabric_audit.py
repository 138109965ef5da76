"""Holds an outbox's file against the chain, by other means than the gateway's: blocks are taken apart here anew.

Every peer must have the same blocks; the read/write sets are applied again, each transaction is executed again on the
state that it read; then every intent's one end must be what the blocks say.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from integration.fabric_faults.contract import TRANSACTIONS

from flexrelay.ledger.fabric import deliver, load_profile
from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.identity import Identity
from flexrelay.ledger.port import LedgerUnavailable
from flexrelay.network import Network
from flexrelay_contracts.context import Creator, split_key
from flexrelay_contracts.runtime import invoke
from support.chain import Signer, wall_ms
from support.contracts import MemoryContext, MemoryLedger
from support.fabric_chain import FabricChain
from support.fabric_load import STORE, TOLD

VALID, DUPLICATE = 0, 9
SPACE = "flexrelay"
PATIENCE_S = 300.0


@dataclass(frozen=True)
class Found:
    """A transaction of the contract in a block."""

    tx_id: str
    block: int
    code: int
    function: str
    actor: str
    intent_id: str


@dataclass
class Report:
    """What was compared."""

    blocks: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    voids: int = 0
    executed: int = 0

    def __str__(self) -> str:
        codes = ", ".join(f"{name} {count}" for name, count in sorted(self.codes.items()))
        ends = ", ".join(f"{name} {count}" for name, count in sorted(self.ends.items()))
        return f"{self.blocks} blocks; {codes}; {self.executed} executed again; outbox: {ends}; voids {self.voids}"


class Replay:
    """The contract's state from the blocks alone."""

    def __init__(self) -> None:
        self.ledger = MemoryLedger()
        self.versions: dict[str, tuple[int, int]] = {}
        self.found: list[Found] = []
        self.executed = 0

    def take(self, block: Any) -> None:
        codes = block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER]
        for index, data in enumerate(block.data.data):
            payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(data).payload)
            header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
            if header.type == common_pb2.ENDORSER_TRANSACTION:
                self._transaction(block.header.number, index, codes[index], header, payload)

    def _transaction(self, number: int, index: int, code: int, header: Any, payload: Any) -> None:
        action = transaction_pb2.ChaincodeActionPayload.FromString(
            transaction_pb2.Transaction.FromString(payload.data).actions[0].payload
        )
        proposal = proposal_pb2.ChaincodeProposalPayload.FromString(action.chaincode_proposal_payload)
        spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(proposal.input).chaincode_spec
        if spec.chaincode_id.name != SPACE:
            return  # the lifecycle's own
        intent = spec.input.args[1]
        content = json.loads(intent)["intent"]
        self.found.append(
            Found(header.tx_id, number, code, content["function"], content["actor"], content["intent_id"])
        )
        if code != VALID:
            return
        response = proposal_response_pb2.ProposalResponsePayload.FromString(action.action.proposal_response_payload)
        results = proposal_pb2.ChaincodeAction.FromString(response.extension).results
        signature = common_pb2.SignatureHeader.FromString(payload.header.signature_header)
        when = header.timestamp.seconds * 1000 + header.timestamp.nanos // 1_000_000
        context = MemoryContext(self.ledger, header.tx_id, when, _creator(signature.creator), {})
        invoke(context, intent, TRANSACTIONS)
        self.executed += 1
        (public,) = (
            kv_rwset_pb2.KVRWSet.FromString(space.rwset)
            for space in rwset_pb2.TxReadWriteSet.FromString(results).ns_rwset
            if space.namespace == SPACE
        )
        for read in public.reads:
            version = (read.version.block_num, read.version.tx_num) if read.HasField("version") else None
            assert self.versions.get(read.key) == version, f"{header.tx_id} is VALID and read an old {read.key!r}"
        writes = {write.key: None if write.is_delete else write.value for write in public.writes}
        assert writes == context.writes, f"executing {header.tx_id} again wrote something else"
        for key, value in writes.items():
            if value is None:
                self.ledger.state.pop(key, None)
                self.versions.pop(key, None)
            else:
                self.ledger.state[key] = value
                self.versions[key] = (number, index)

    def balances(self) -> dict[str, int]:
        totals: dict[str, int] = {}
        for key, value in self.ledger.state.items():
            kind, *attributes = split_key(key)
            if kind == "balance":
                totals[attributes[1]] = totals.get(attributes[1], 0) + json.loads(value)["micro_eur"]
        return totals


def _creator(serialized: bytes) -> Creator:
    identity = identities_pb2.SerializedIdentity.FromString(serialized)
    public = x509.load_pem_x509_certificate(identity.id_bytes).public_key()
    point = public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return Creator(identity.mspid, hashlib.sha256(point).hexdigest())


async def chain_of(chain: FabricChain, number: int, height: int) -> list[Any]:
    """The blocks of the profile's peer with this number."""
    profile = load_profile(chain.profile)
    peer = PeerChannel(profile.peers[number], number, None)
    identity = Identity(profile, Signer(chain.gateway))
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    stream = deliver.blocks(peer, identity, profile.channel, 0, height - 1, wall_ms())
                    return [block async for block in stream]
                except LedgerUnavailable:
                    await asyncio.sleep(0.5)
    finally:
        await peer.close()


async def settled_height(network: Network, channel: str) -> int:
    """The height of the channel, once all peers have it: one may be behind for a while, or too busy to tell."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            status = await asyncio.to_thread(network.status)
            heights = [item.heights.get(channel, 0) for item in status if item.kind == "peer"]
            if min(heights) == max(heights) > 0:
                return heights[0]
            await asyncio.sleep(0.5)


async def balances_told(chain: FabricChain) -> Any:
    """What the contract says of all accounts."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                async with chain.connect() as ledger:
                    return await ledger.evaluate("accounts.balances", {})
            except LedgerUnavailable:
                await asyncio.sleep(0.5)


async def audit(chain: FabricChain, network: Network) -> Report:
    """Compare everything. Nothing may be under way any more. Raises AssertionError."""
    profile = load_profile(chain.profile)
    height = await settled_height(network, profile.channel)
    chains = [await chain_of(chain, number, height) for number in range(len(profile.peers))]
    replay = Replay()
    for number, blocks in enumerate(zip(*chains, strict=True)):
        assert len({block.header.SerializeToString() for block in blocks}) == 1, f"peers differ in block {number}"
        judged = {block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER] for block in blocks}
        assert len(judged) == 1, f"peers judge block {number} differently"
        commit = {block.metadata.metadata[common_pb2.COMMIT_HASH] for block in blocks}
        assert len(commit) == 1, f"peers have different states after block {number}"
        assert blocks[0].header.data_hash == hashlib.sha256(b"".join(blocks[0].data.data)).digest()
        replay.take(blocks[0])
    report = Report(blocks=height, executed=replay.executed)
    report.codes.update(transaction_pb2.TxValidationCode.Name(found.code) for found in replay.found)
    one_end_each(chain, replay, report)
    balances = {account: amount for account, amount in replay.balances().items() if amount}
    assert sum(balances.values()) == 0
    told = await balances_told(chain)
    assert told["sum_micro_eur"] == 0
    assert {row["account"]: row["micro_eur"] for row in told["accounts"] if row["micro_eur"]} == balances
    return report


def one_end_each(chain: FabricChain, replay: Replay, report: Report) -> None:
    """The outbox's file against the transactions of the blocks."""
    valid: dict[tuple[str, str], list[Found]] = defaultdict(list)
    by_id: dict[str, list[Found]] = defaultdict(list)
    for found in replay.found:
        by_id[found.tx_id].append(found)
        if found.code == VALID:
            valid[found.actor, found.intent_id].append(found)
    for tx_id, places in by_id.items():
        assert sum(found.code == VALID for found in places) <= 1, f"{tx_id} was applied twice"
        assert all(found.code == DUPLICATE for found in places[1:]), f"{tx_id} was judged twice"
    for intent, places in valid.items():
        assert len(places) == 1, f"intent {intent} was applied {len(places)} times"
    with closing(sqlite3.connect(f"file:{chain.folder / STORE}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        entries = database.execute("SELECT * FROM outbox_entry").fetchall()
        attempts = database.execute("SELECT * FROM outbox_transaction").fetchall()
    marks = _marks(replay)
    for entry in entries:
        intent = (entry["actor"], entry["intent_id"])
        report.ends[entry["state"]] += 1
        match entry["state"]:
            case "committed":
                (transaction,) = valid.pop(intent)
                assert (entry["tx_id"], entry["block"]) == (transaction.tx_id, transaction.block), intent
                assert transaction.function == entry["function"]
                assert marks[intent] == ("used", entry["tx_id"])
            case "refused":
                assert intent not in valid, f"{intent} is refused in the outbox and stands in a block"
                assert entry["code"]
            case "expired":
                assert intent not in valid, f"{intent} is expired in the outbox and stands in a block"
                if entry["tx_id"]:
                    report.voids += 1
                    assert marks[intent] == ("void", entry["tx_id"])
            case other:
                raise AssertionError(f"{intent} has not ended: {other}")
        if entry["state"] == "expired" and not entry["tx_id"]:
            assert intent not in marks, f"{intent} has a mark on the ledger, none in the outbox"
    rest = [found for places in valid.values() for found in places]
    unknown = [found for found in rest if found.function not in ("network.bootstrap", "intents.void")]
    assert not unknown, f"{len(unknown)} transactions of no entry, e.g. {unknown[0]}"
    for attempt in attempts:
        if attempt["block"] == -1:  # it was rejected before it was on its way
            assert attempt["tx_id"] not in by_id
        elif attempt["validation"]:
            first = by_id[attempt["tx_id"]][0]
            name = transaction_pb2.TxValidationCode.Name(first.code)
            assert attempt["validation"] in (name, "INVALID"), (attempt["tx_id"], name)
            unrecorded = (None,) if attempt["role"] == "void" else ()
            assert attempt["block"] in (first.block, *unrecorded), (attempt["tx_id"], attempt["block"], first)
    told = chain.folder / TOLD
    ends = {entry["intent_id"]: entry for entry in entries}
    for line in told.read_text().splitlines() if told.exists() else ():
        name, kind, tx_id = (*line.split(" "), "")[:3]
        assert ends[name]["state"] == kind.removesuffix("Intent").lower(), line
        assert ends[name]["tx_id"] == tx_id, line


def _marks(replay: Replay) -> dict[tuple[str, str], tuple[str, str]]:
    """(actor, intent id) → (status, transaction) of the state that the blocks give."""
    found = {}
    for key, value in replay.ledger.state.items():
        kind, *attributes = split_key(key)
        if kind == "intent":
            record: Mapping[str, Any] = json.loads(value)
            found[attributes[1], attributes[2]] = (record["status"], record["tx_id"])
    return found
