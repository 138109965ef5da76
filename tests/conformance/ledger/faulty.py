"""Ledgers that are wrong in one thing each: the suite must notice every one of them.

A fault either changes the embedded ledger's parts, or stands between the promise and its connections.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from conformance.ledger.embedded import EmbeddedHarness, EmbeddedNetwork
from conformance.ledger.harness import LedgerHarness, Network, Spec, wall_ms

from flexrelay.ledger.embedded import envelope as wire
from flexrelay.ledger.embedded.engine import Accepted, Engine
from flexrelay.ledger.embedded.simulation import Simulation
from flexrelay.ledger.port import (
    Call,
    Checkpoint,
    Committed,
    Ledger,
    Prepared,
    Rejected,
    TxEvents,
    TxStatus,
    Validation,
)
from flexrelay_contracts.context import Page
from flexrelay_contracts.refusal import Refused


class Wrapped:
    """A connection that passes everything on; a fault overrides what it breaks."""

    def __init__(self, inner: Ledger, network: Network) -> None:
        self.inner = inner
        self.network = network

    @property
    def org(self) -> str:
        return self.inner.org

    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        return await self.inner.evaluate(function, args)

    async def prepare(self, call: Call) -> Prepared:
        return await self.inner.prepare(call)

    async def submit(self, envelope: bytes) -> None:
        await self.inner.submit(envelope)

    async def status(self, tx_id: str) -> TxStatus:
        return await self.inner.status(tx_id)

    async def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        async for item in self.inner.events(checkpoint):
            yield item


class FaultyHarness(LedgerHarness):
    """The embedded ledger with one fault: a change to its engine, or a wrapper around its connections."""

    def __init__(self, change: Callable[[Engine], None] | None, wrapper: type[Wrapped] | None) -> None:
        self.change = change
        self.wrapper = wrapper

    @asynccontextmanager
    async def open(self, spec: Spec) -> AsyncIterator[Network]:
        async with EmbeddedHarness().open(spec) as network:
            assert isinstance(network, EmbeddedNetwork)
            network.patience_s = 1.5
            if self.change is not None:
                self.change(network.ledger._engine)
            if self.wrapper is not None:
                honest, wrapper = network.connect, self.wrapper

                def connect(org: str, *, clock: Callable[[], int] = wall_ms) -> Ledger:
                    return wrapper(honest(org, clock=clock), network)

                network.connect = connect  # type: ignore[method-assign] # the fault
            yield network


# Changes to the engine


def no_versions(engine: Engine) -> None:
    _rewrite(engine, reads=[], private_reads=[])


def no_absent_reads(engine: Engine) -> None:
    _filter(engine, "reads", lambda row: len(row) > 1)


def no_private_versions(engine: Engine) -> None:
    _rewrite(engine, private_reads=[])


def no_ranges(engine: Engine) -> None:
    _rewrite(engine, ranges=[])


def no_empty_ranges(engine: Engine) -> None:
    _filter(engine, "ranges", lambda row: row[2] > 0)


def versions_on_writes(engine: Engine) -> None:
    """Blind writes conflict too."""
    judge = engine._validator.judge_next

    def strict(judgement: Any, body: wire.Body, fresh: Any = ()) -> Validation:
        found = judge(judgement, body, fresh)
        written = [judgement.overlay.get(key) for key, _ in body["writes"]]
        return Validation.MVCC_READ_CONFLICT if any(entry is not None for entry in written) else found

    engine._validator.judge_next = strict  # type: ignore[method-assign] # the fault


def values_as_versions(engine: Engine) -> None:
    """A write of the same value does not count as a change."""
    judge = engine._validator.judge_next
    known: dict[str, list[int]] = {}

    def lax(judgement: Any, body: wire.Body, fresh: Any = ()) -> Validation:
        for key, text in body["writes"]:
            entry = judgement.overlay.get(key)
            if text is not None and entry is not None and entry.value == wire.unb64(text):
                known[key] = [entry.block, entry.tx]
        reads = []
        for key, *version in body["reads"]:
            entry = judgement.overlay.get(key)
            reads.append([key, entry.block, entry.tx] if entry and known.get(key) == version else [key, *version])
        return judge(judgement, {**body, "reads": reads}, fresh)

    engine._validator.judge_next = lax  # type: ignore[method-assign] # the fault


def everything_twice(engine: Engine) -> None:
    """A transaction id may come again; its writes are applied again, whatever was read."""

    def judge(judgement: Any, body: wire.Body, fresh: Any = ()) -> Validation:
        known = engine.state.transaction(body["tx_id"])
        if known is None:
            return Validation.VALID
        for key, text in body["writes"]:
            if text is not None and key.startswith("k-"):
                old = judgement.overlay.get(key)
                total = str(int(old.value) + 1).encode()
                judgement.overlay.changes[key] = old._replace(value=total)
        return Validation.DUPLICATE_TXID

    engine._validator.judge_next = judge  # type: ignore[method-assign] # the fault


def no_endorsement_policy(engine: Engine) -> None:
    engine._validator._endorsed = lambda view, body: True  # type: ignore[method-assign] # the fault


def no_key_policies(engine: Engine) -> None:
    engine.state.policy = lambda key: None  # type: ignore[method-assign] # the fault


def no_time_guard(engine: Engine) -> None:
    engine._check_time = lambda timestamp, tx_id: None  # type: ignore[method-assign] # the fault


def no_size_limit(engine: Engine) -> None:
    engine._check_size = lambda size, tx_id: None  # type: ignore[method-assign] # the fault


def own_clock(engine: Engine) -> None:
    """The ledger's time instead of the gateway's."""
    simulate = engine.simulate
    engine.simulate = lambda identity, call, stamp: simulate(identity, call, wall_ms())  # type: ignore[method-assign] # the fault


def any_envelope(engine: Engine) -> None:
    """Neither signature nor attestation are looked at."""

    def accept(envelope: bytes) -> Accepted:
        try:
            body = wire.decode_body(wire.split(envelope).body)
            return Accepted(body["tx_id"], envelope, body)
        except (ValueError, KeyError) as error:
            raise Rejected(str(error)) from error

    engine.accept = accept  # type: ignore[method-assign] # the fault


def open_collections(engine: Engine) -> None:
    _simulate_with(engine, _OpenCollections)


def own_writes(engine: Engine) -> None:
    _simulate_with(engine, _OwnWrites)


def empty_values(engine: Engine) -> None:
    _simulate_with(engine, _EmptyValues)


def writes_after_pages(engine: Engine) -> None:
    _simulate_with(engine, _WritesAfterPages)


def any_collection(engine: Engine) -> None:
    _simulate_with(engine, _AnyCollection)


def no_parts_of_ranges(engine: Engine) -> None:
    """A range that was not read to its end is protected nowhere."""
    _simulate_with(engine, _NoPartsOfRanges)


def inclusive_ranges(engine: Engine) -> None:
    _simulate_with(engine, _InclusiveRanges)


def overlapping_pages(engine: Engine) -> None:
    _simulate_with(engine, _OverlappingPages)


def purge_keeps_the_value(engine: Engine) -> None:
    apply = engine.private.apply
    engine.private.apply = lambda number, judged, changes: apply(number, judged, [])  # type: ignore[method-assign] # the fault
    _simulate_with(engine, _KeepsPurged)


def private_writes_of_losers(engine: Engine) -> None:
    """What an invalid transaction staged is written as well."""
    stage, get = engine.private.stage, engine.private.get
    last: dict[tuple[str, str], bytes] = {}

    def keep(tx_id: str, timestamp: int, values: Any) -> None:
        stage(tx_id, timestamp, values)
        for collection, _, key, value in values:
            last[collection, key] = value

    engine.private.stage = keep  # type: ignore[method-assign] # the fault
    engine.private.get = lambda collection, key: last.get((collection, key)) or get(collection, key)  # type: ignore[method-assign] # the fault


def private_at_once(engine: Engine) -> None:
    """A staged value is visible before its transaction is committed."""
    last: dict[tuple[str, str], bytes] = {}
    stage = engine.private.stage

    def keep(tx_id: str, timestamp: int, values: Any) -> None:
        stage(tx_id, timestamp, values)
        for collection, _, key, value in values:
            last[collection, key] = value

    class Early(Simulation):
        def get_private(self, collection: str, key: str) -> bytes | None:
            return last.get((collection, key)) or super().get_private(collection, key)

    engine.private.stage = keep  # type: ignore[method-assign] # the fault
    _simulate_with(engine, Early)


class _OwnWrites(Simulation):
    def get(self, key: str) -> bytes | None:
        found = super().get(key)
        return self.writes.get(key, found)


class _EmptyValues(Simulation):
    def put(self, key: str, value: bytes) -> None:
        super().put(key, value or b"\x00")


class _WritesAfterPages(Simulation):
    def range_page(self, start: str, end: str, size: int, bookmark: str = "") -> Page:
        found = super().range_page(start, end, size, bookmark)
        self._paged = False
        return found


class _OpenCollections(Simulation):
    def _may_read(self, collection: str) -> None:
        return None


class _AnyCollection(Simulation):
    def _known(self, collection: str) -> tuple[str, ...]:
        return self._members.get(collection, ())


class _NoPartsOfRanges(Simulation):
    def range(self, start: str, end: str) -> Any:
        found: Any = super().range(start, end)
        self._open.remove(found)

        def entries() -> Iterator[tuple[str, bytes]]:
            yield from found
            self._open.append(found)

        return entries()


class _InclusiveRanges(Simulation):
    def range(self, start: str, end: str) -> Any:
        entries = list(super().range(start, end))
        list(super().range(start, end + "\x00"))
        return entries


class _OverlappingPages(Simulation):
    def range_page(self, start: str, end: str, size: int, bookmark: str = "") -> Page:
        found = super().range_page(start, end, size, bookmark)
        return Page(found.items, found.items[-1][0] if found.bookmark else "")


class _KeepsPurged(Simulation):
    _kept: ClassVar[dict[tuple[str, str], bytes]] = {}

    def put_private(self, collection: str, key: str, value: bytes) -> None:
        super().put_private(collection, key, value)
        self._kept[collection, key] = value

    def get_private(self, collection: str, key: str) -> bytes | None:
        return self._kept.get((collection, key))


def _simulate_with(engine: Engine, kind: type[Simulation]) -> None:
    honest = engine._simulation

    def simulation(*args: Any, **kwargs: Any) -> Simulation:
        made = honest(*args, **kwargs)
        made.__class__ = kind
        return made

    engine._simulation = simulation  # type: ignore[method-assign] # the fault


def _rewrite(engine: Engine, **parts: Any) -> None:
    """Judge every transaction as if its body said this."""
    judge = engine._validator.judge_next

    def lax(judgement: Any, body: wire.Body, fresh: Any = ()) -> Validation:
        return judge(judgement, {**body, **parts}, fresh)

    engine._validator.judge_next = lax  # type: ignore[method-assign] # the fault


def _filter(engine: Engine, part: str, keep: Callable[[Any], bool]) -> None:
    judge = engine._validator.judge_next

    def lax(judgement: Any, body: wire.Body, fresh: Any = ()) -> Validation:
        return judge(judgement, {**body, part: [row for row in body[part] if keep(row)]}, fresh)

    engine._validator.judge_next = lax  # type: ignore[method-assign] # the fault


# Wrappers around connections


class CommitsAtPrepare(Wrapped):
    async def prepare(self, call: Call) -> Prepared:
        prepared = await self.inner.prepare(call)
        await self.inner.submit(prepared.envelope)
        return prepared


class EmptyResults(Wrapped):
    async def prepare(self, call: Call) -> Prepared:
        prepared = await self.inner.prepare(call)
        return Prepared(prepared.tx_id, prepared.envelope, {})


class UsesRefusedIntents(Wrapped):
    """A refusal loses its field, and what the function wrote stays."""

    async def prepare(self, call: Call) -> Prepared:
        try:
            return await self.inner.prepare(call)
        except Refused as refused:
            raise Refused(refused.code, refused.message) from None


class SwallowsDefects(Wrapped):
    async def prepare(self, call: Call) -> Prepared:
        try:
            return await self.inner.prepare(call)
        except Refused:
            return await self.inner.prepare(Call(self.network.intent("probe.emit", names=[])))


class ForgetsDeadlines(Wrapped):
    async def prepare(self, call: Call) -> Prepared:
        try:
            return await self.inner.prepare(call)
        except Refused as refused:
            if refused.code != "expired":
                raise
            return await self.inner.prepare(Call(self.network.intent("probe.emit", names=[])))


class LosesCancelledSubmissionsForGood(Wrapped):
    """An envelope is taken once; when its caller went away, it is gone."""

    taken: ClassVar[set[bytes]] = set()

    async def submit(self, envelope: bytes) -> None:
        if envelope in self.taken:
            return
        self.taken.add(envelope)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await self.inner.submit(envelope)


class GuessesStatus(Wrapped):
    async def status(self, tx_id: str) -> TxStatus:
        return Committed(tx_id, 0, Validation.VALID)


class PlaintextEnvelopes(Wrapped):
    async def prepare(self, call: Call) -> Prepared:
        prepared = await self.inner.prepare(call)
        return Prepared(prepared.tx_id, prepared.envelope + b"".join(call.transient.values()), prepared.result)


class HidesHashes(Wrapped):
    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        return (
            None if function == "probe.private_hash" and self.org == "aggb" else await super().evaluate(function, args)
        )


class NoPrivateReads(Wrapped):
    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        return None if function == "probe.private_get" else await super().evaluate(function, args)


class UtfSixteenOrder(Wrapped):
    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        found = await super().evaluate(function, args)
        return sorted(found, key=lambda row: row[0].encode("utf-16-be")) if function == "probe.range" else found


class OrganisationsApart(Wrapped):
    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        return None if self.org == "aggb" else await super().evaluate(function, args)


class NoDeletes(Wrapped):
    """What was once there is still read after a delete."""

    async def evaluate(self, function: str, args: Mapping[str, Any]) -> Any:
        return await super().evaluate(function, args) or "v"


class SilentEvents(Wrapped):
    async def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        async for item in self.inner.events(checkpoint):
            yield _replace(item, events=item.events[:1])


class EventsOfInvalid(Wrapped):
    async def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        last = ()
        async for item in self.inner.events(checkpoint):
            yield _replace(item, events=last if item.validation is not Validation.VALID else item.events)
            last = item.events  # type: ignore[assignment] # the fault


class SwapsPairs(Wrapped):
    async def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        kept = None
        async for item in self.inner.events(checkpoint):
            if kept is None:
                kept = item
                continue
            yield item
            yield kept
            kept = None


class ResumesTooLate(Wrapped):
    async def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        skip = checkpoint.tx_id != ""
        async for item in self.inner.events(checkpoint):
            if not skip:
                yield item
            skip = False


class NoBlockEnds(Wrapped):
    async def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        async for item in self.inner.events(checkpoint):
            yield _replace(item, last_in_block=True)


class LeavesOneOutWhileLive(Wrapped):
    async def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        known = await self.network.ledger.height()  # type: ignore[attr-defined] # an EmbeddedNetwork
        left_out = False
        async for item in self.inner.events(checkpoint):
            if item.block >= known and not left_out:
                left_out = True
                continue
            yield item


class EventBeforeState(Wrapped):
    """Tells of a transaction as soon as it is submitted; the state follows."""

    told: ClassVar[list[str]] = []

    async def submit(self, envelope: bytes) -> None:
        tx_id = wire.decode_body(wire.split(envelope).body)["tx_id"]
        self.told.append(tx_id)
        await asyncio.sleep(0.05)
        await self.inner.submit(envelope)

    async def events(self, checkpoint: Checkpoint) -> AsyncIterator[TxEvents]:
        while not self.told:  # noqa: ASYNC110 (one turn of the loop is enough)
            await asyncio.sleep(0)
        yield TxEvents(9, self.told[-1], Validation.VALID, 0, (), True)


def _replace(item: TxEvents, **changes: Any) -> TxEvents:
    fields = {name: getattr(item, name) for name in TxEvents.__dataclass_fields__}
    return TxEvents(**{**fields, **changes})
