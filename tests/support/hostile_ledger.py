"""A scripted ledger that does what networks do: drops, delays, doubles, forgets to answer, conflicts, refuses.

It keeps the port's promises all the same (an envelope is applied at most once; two transactions of one intent
conflict), and it notes what a relay must never do: submit an envelope again without having asked for its status.
"""

import asyncio
import json
import secrets
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flexrelay.ledger.port import (
    Call,
    Checkpoint,
    Committed,
    ContractEvent,
    LedgerUnavailable,
    NotFound,
    OutcomeUnknown,
    Prepared,
    Rejected,
    TxEvents,
    TxStatus,
    Validation,
)
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import decode_intent
from flexrelay_schemas.encoding import b64u_decode

Marker = tuple[str, str]

SUBMIT_FAULTS = ("ok", "drop", "lost", "ordered_unknown", "unavailable", "reject", "double", "hold", "invalid")
PREPARE_FAULTS = ("ok", "unavailable", "refuse", "conflict")


@dataclass
class Transaction:
    tx_id: str
    intent: Marker
    void: bool
    stale: bool
    """Reads something that changes before its block: it will conflict."""


@dataclass
class HostileLedger:
    """`submit_script` and `prepare_script` are consumed call by call; when they are empty the ledger behaves."""

    org: str = "org1"
    now: int = 1_700_000_000_000
    submit_script: deque[str] = field(default_factory=deque)
    prepare_script: deque[str] = field(default_factory=deque)
    status_script: deque[str] = field(default_factory=deque)
    down: bool = False
    stalled: bool = False
    """The orderer takes envelopes and sits on them."""
    break_stream: bool = False
    blocks: list[list[tuple[Transaction, Validation]]] = field(default_factory=list)
    markers: dict[Marker, tuple[str, str]] = field(default_factory=dict)
    held: list[Transaction] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    submissions: dict[str, int] = field(default_factory=dict)
    prepared_order: list[str] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    _pool: list[Transaction] = field(default_factory=list)
    _invalid: set[str] = field(default_factory=set)
    _unasked: set[str] = field(default_factory=set)
    _grown: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        await asyncio.sleep(0)
        if self.down:
            raise LedgerUnavailable("down")
        if function != "intents.status":
            raise Refused("unknown_function", f"no {function}")
        found = self.markers.get((args["actor"], args["intent_id"]))
        return None if found is None else {"status": found[0], "tx_id": found[1]}

    async def prepare(self, call: Call) -> Prepared:
        await asyncio.sleep(0)
        fault = self.prepare_script.popleft() if self.prepare_script else "ok"
        if self.down or fault == "unavailable":
            raise LedgerUnavailable("no endorser")
        intent = decode_intent(call.intent).intent
        if self.now > intent.deadline:
            raise Refused("expired", "too late", "deadline")
        void = intent.function == "intents.void"
        target = intent
        if void:
            target = decode_intent(b64u_decode(intent.args["intent"])).intent
            if self.now <= target.deadline:
                raise Refused("too_early", "the intent may still be used")
        marker = (target.actor, target.intent_id)
        if marker in self.markers:
            status, tx_id = self.markers[marker]
            raise Refused("intent_used", f"{status} in {tx_id}", "intent_id")
        if fault == "refuse" and not void:
            raise Refused("no", "because", "args.x")
        tx_id = secrets.token_hex(8)
        envelope = {"tx_id": tx_id, "intent": list(marker), "void": void, "stale": fault == "conflict"}
        self.prepared_order.append(target.intent_id)
        return Prepared(tx_id, json.dumps(envelope).encode(), {"tx": tx_id})

    async def submit(self, envelope: bytes) -> None:
        content = json.loads(envelope)
        tx = Transaction(content["tx_id"], tuple(content["intent"]), content["void"], content["stale"])
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            self._submit(tx)
        finally:
            self.in_flight -= 1

    def _submit(self, tx: Transaction) -> None:
        if tx.tx_id in self._unasked:
            self.violations.append(f"{tx.tx_id} was submitted again without asking")
        self._unasked.add(tx.tx_id)
        self.submissions[tx.tx_id] = self.submissions.get(tx.tx_id, 0) + 1
        fault = self.submit_script.popleft() if self.submit_script else "ok"
        if self.down or fault == "unavailable":
            raise LedgerUnavailable("no orderer")
        if fault == "reject":
            raise Rejected("timestamp out of the guard", tx.tx_id)
        if fault == "drop":
            return
        if self.stalled:
            self.held.append(tx)
            return
        if fault == "lost":
            raise OutcomeUnknown("timeout", tx.tx_id)
        if fault == "hold":
            self.held.append(tx)
            raise OutcomeUnknown("timeout", tx.tx_id)
        if fault == "invalid":
            self._invalid.add(tx.tx_id)
        self._pool.append(tx)
        if fault == "double":
            self._pool.append(tx)
        if fault == "ordered_unknown":
            raise OutcomeUnknown("connection reset", tx.tx_id)

    async def status(self, tx_id: str) -> TxStatus:
        await asyncio.sleep(0)
        fault = self.status_script.popleft() if self.status_script else "ok"
        if self.down or fault == "unavailable":
            raise LedgerUnavailable("no peer")
        for number, block in enumerate(self.blocks):
            for tx, validation in block:
                if tx.tx_id == tx_id:
                    self._unasked.discard(tx_id)
                    return Committed(tx_id, number, validation)
        self._unasked.discard(tx_id)
        if fault == "cut_after":  # the answer is old before it arrives
            await self.cut()
            await asyncio.sleep(0.001)
        return NotFound(tx_id)

    async def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        """At least once: the checkpoint's whole block comes again."""
        number = max(checkpoint.block, 0)
        while True:
            async with self._grown:
                while len(self.blocks) <= number and not self.break_stream:
                    await self._grown.wait()
            if self.break_stream:
                self.break_stream = False
                raise LedgerUnavailable("stream reset")
            block = self.blocks[number]
            for index, (tx, validation) in enumerate(block):
                events: tuple[ContractEvent, ...] = ()
                if validation is Validation.VALID:
                    events = (ContractEvent("test.done", json.dumps({"tx": tx.tx_id}).encode()),)
                yield TxEvents(number, tx.tx_id, validation, self.now, events, index == len(block) - 1)
            number += 1

    async def cut(self) -> None:
        """Order what waits into a block."""
        block: list[tuple[Transaction, Validation]] = []
        pool, self._pool = self._pool, []
        seen = {tx.tx_id for past in self.blocks for tx, _ in past}
        for tx in pool:
            block.append((tx, self._validate(tx, seen)))
            seen.add(tx.tx_id)
        if block:
            self.blocks.append(block)
        async with self._grown:
            self._grown.notify_all()

    def _validate(self, tx: Transaction, seen: set[str]) -> Validation:
        if tx.tx_id in seen:
            return Validation.DUPLICATE_TXID
        if tx.tx_id in self._invalid:
            return Validation.ENDORSEMENT_POLICY_FAILURE
        if tx.stale or tx.intent in self.markers:
            return Validation.MVCC_READ_CONFLICT
        self.markers[tx.intent] = ("void" if tx.void else "used", tx.tx_id)
        return Validation.VALID

    async def run(self, every_s: float = 0.002) -> None:
        """Cut blocks until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.cut()

    def release(self) -> None:
        """Envelopes that were held back reach the orderer."""
        self._pool.extend(self.held)
        self.held = []

    def heal(self) -> None:
        self.down = self.stalled = False
        self.submit_script.clear()
        self.prepare_script.clear()
        self.status_script.clear()

    def valid(self, intent: Marker) -> list[str]:
        """Ids of the valid, not voiding transactions of an intent."""
        return [
            tx.tx_id
            for block in self.blocks
            for tx, validation in block
            if validation is Validation.VALID and not tx.void and tx.intent == intent
        ]
