"""Executes a valid public transaction once more: what it read is unchanged, so all of it must come out the same."""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, cast

from google.protobuf.message import DecodeError

from flexrelay.ledger.embedded.overlay import Overlay
from flexrelay.ledger.embedded.private import PrivateValues
from flexrelay.ledger.embedded.simulation import Simulation
from flexrelay.ledger.fabric.messages import ChaincodeEvent
from flexrelay.ledger.fabric.verify.transactions import Call, Space
from flexrelay.ledger.fabric.verify.world import parameter_of
from flexrelay_chaincode.writes import key_policy
from flexrelay_contracts.context import Creator
from flexrelay_contracts.invocation import EVENTS, OK, SUBMIT, encode_events
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Transaction, invoke
from flexrelay_schemas.canonical import canonical

Transactions = Mapping[str, Transaction[Any]]


class Hidden(Exception):
    """The execution used what is not on the chain."""


class _NoPrivateValues:
    def get(self, collection: str, key: str) -> NoReturn:
        raise Hidden


class _NoTransient(Mapping[str, bytes]):
    """Says that nothing was sent, and remembers that it was asked: what was sent is not on the chain."""

    def __init__(self) -> None:
        self.asked = False

    def __getitem__(self, name: str) -> bytes:
        self.asked = True
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        self.asked = True
        return iter(())

    def __len__(self) -> int:
        self.asked = True
        return 0


def differences(
    call: Call, space: Space, overlay: Overlay, members: Mapping[str, tuple[str, ...]], transactions: Transactions
) -> list[str]:
    """What comes out otherwise than `call` says; `space` is of the namespace with the contracts' state.

    Raises Hidden when the execution depends on private values or transient inputs.
    """
    transient = _NoTransient()
    simulation = Simulation(
        overlay,
        cast(PrivateValues, _NoPrivateValues()),
        tx_id=call.tx_id,
        tx_time=call.timestamp_ms,
        creator=Creator(call.creator.org, call.creator.identifier),
        transient=transient,
        members=members,
        endorsing=(),
    )
    if len(call.args) != 2 or call.args[0] != SUBMIT:
        return ["is no call that these contracts know"]
    try:
        result = canonical(dict(invoke(simulation, call.args[1], transactions)))
        simulation.finish()
        found = list(_compare(call, space, simulation, overlay, result))
    except Hidden:
        raise
    except Refused as refused:
        found = [f"executed again, it is refused: {refused}"]
    except Exception as error:
        found = [f"executed again, it fails: {type(error).__name__}: {error}"]
    if found and transient.asked:
        raise Hidden
    return found


def _compare(call: Call, space: Space, simulation: Simulation, overlay: Overlay, result: bytes) -> Iterator[str]:
    for name, again, told in (
        ("reads", _reads(simulation, overlay), _told_reads(space)),
        ("ranges", _ranges(simulation), _told_ranges(simulation, space)),
        ("writes", simulation.writes, {w.key: None if w.is_delete else w.value for w in space.public.writes}),
        (
            "key policies",
            {key: key_policy(terms) for key, terms in simulation.policies.items()},
            {item.key: bytes.fromhex((parameter_of(item) or ("",))[0]) for item in space.public.metadata_writes},
        ),
        ("private reads", simulation.private_reads, _told_private_reads(space)),
        (
            "private writes",
            {place: value is None for place, (_, value) in simulation.private_writes.items()},
            {
                (collection, item.key_hash.hex()): item.is_delete or item.is_purge
                for collection, hashed in space.private
                for item in hashed.hashed_writes
            },
        ),
        ("events", encode_events(simulation.events) if simulation.events else b"", _told_events(call)),
        ("result", (OK, result), (call.executed.response.status, call.executed.response.payload)),
    ):
        if again != told:
            yield f"executed again, its {name} differ: {again!r:.300} instead of {told!r:.300}"


def _version(item: Any) -> tuple[int, int] | None:
    return (item.version.block_num, item.version.tx_num) if item.HasField("version") else None


def _reads(simulation: Simulation, overlay: Overlay) -> dict[str, Any]:
    """Single reads; the empty key is never asked for, a key whose policy is set must be there."""
    found: dict[str, Any] = {key: version for key, version in simulation.reads.items() if key}
    for key in simulation.policies:
        if key not in simulation.writes and key not in found:
            entry = overlay.get(key)
            found[key] = None if entry is None else entry.version
    return found


def _told_reads(space: Space) -> dict[str, Any]:
    return {item.key: _version(item) for item in space.public.reads}


def _ranges(simulation: Simulation) -> list[tuple[str, str]]:
    return sorted({(start, end) for start, end, _, _ in simulation.ranges if start < end})


def _told_ranges(simulation: Simulation, space: Space) -> list[tuple[str, str]]:
    """(start, end) of each range, without those in which the runtime asked once more behind the last key it got."""
    mine = {start for start, _, _, _ in simulation.ranges}
    infos = sorted((item.start_key, _end(item)) for item in space.public.range_queries_info)
    ends = [end for _, end in infos]
    return sorted({(start, end) for start, end in infos if start in mine or end not in ends})


def _end(info: Any) -> str:
    """Where a range that was read ends, the end not in it."""
    return str(info.end_key) if info.itr_exhausted else f"{info.end_key}\x00"


def _told_private_reads(space: Space) -> dict[tuple[str, str], Any]:
    return {
        (collection, item.key_hash.hex()): _version(item)
        for collection, hashed in space.private
        for item in hashed.hashed_reads
    }


def _told_events(call: Call) -> bytes:
    if not call.executed.events:
        return b""
    try:
        event = ChaincodeEvent.FromString(call.executed.events)
    except DecodeError:
        return b"?"
    return bytes(event.payload) if event.event_name == EVENTS else b"?"


__all__ = ["Hidden", "Transactions", "differences"]
