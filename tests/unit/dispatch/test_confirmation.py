"""A command's last step: a reading of the device shows it. Stored once, with the position it came from."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexrelay.dispatch import DISPATCH, Confirmation, Delivery, Dispatcher, DispatchOrder, OrderedIsp, Planned
from flexrelay.journal.port import Entry
from flexrelay.store import Component, Store
from flexrelay_schemas.measurement import Measurement
from flexrelay_sdk import Command, CommandState, CommandUpdate

ORDER = DispatchOrder("o-1", "agg", (OrderedIsp(1, 1_000, 2_000, 500),))
QUEUED, SENT, ACKED, CONFIRMED, FAILED, EXPIRED = (
    CommandState.QUEUED,
    CommandState.SENT,
    CommandState.ACKED,
    CommandState.CONFIRMED,
    CommandState.FAILED,
    CommandState.EXPIRED,
)


class Transport:
    """Tells these states, in this order."""

    can_command = True

    def __init__(self, *states: CommandState) -> None:
        self._states = states

    async def execute(self, command: Command, on_update: Callable[[CommandUpdate], Awaitable[None]]) -> None:
        for state in self._states:
            await on_update(CommandUpdate(command.command_id, state, 5))


def planned(parameters: Mapping[str, int] | None = None) -> Planned:
    told = parameters or {"power_w": 500, "from_ms": 1_000, "until_ms": 2_000}
    return Planned("did:b", "b", "set_power", told, 0, 10_000)


def entry(position: int, power_w: int, observed_at: int = 1_500, did: str = "did:b") -> Entry:
    measurement = Measurement(did, observed_at, {"power_w": power_w, "import_j": position})
    return Entry(position, 0, did, "mqtt", "b", "", 7_000 + position, True, b"x", (measurement,))


async def run(path: Path, states: tuple[CommandState, ...], *batches: list[Entry]) -> tuple[object, list[CommandState]]:
    async with Store(path, [DISPATCH]) as store:
        async with Dispatcher(store, "t", Transport(*states), clock=lambda: 5) as sending:
            (command_id,) = await sending.accept(ORDER, [planned()])
            async with asyncio.timeout(60):
                while (await sending.commands("o-1"))[0].state is not states[-1]:  # noqa: ASYNC110  # on disk
                    await asyncio.sleep(0.005)
        before = await sending.activated_hash("o-1")
        delivery = Delivery(store, "t")
        for batch in batches:
            await delivery.consume(batch)
        (record,) = await sending.commands("o-1")
        assert record.state is states[-1], "the transport's word stays"
        assert await sending.activated_hash("o-1") == before, "what was reported to the ledger stays true"
        assert record.life is (CONFIRMED if record.confirmation else record.state)
        return record.confirmation, [step.state for step in await sending.steps(command_id)]


async def test_the_first_reading_that_shows_it_confirms_it(tmp_path: Path) -> None:
    batches = [entry(1, 0), entry(2, 500, 1_000)], [entry(3, 500, did="did:other"), entry(4, 470), entry(5, 500)]
    confirmation, steps = await run(tmp_path / "s.db", (SENT, ACKED), *batches)
    assert confirmation == Confirmation(4, 1_500)
    assert steps == [QUEUED, SENT, ACKED, CONFIRMED]


@pytest.mark.parametrize(
    ("states", "confirmed"),
    [((SENT, ACKED), True), ((SENT, EXPIRED), True), ((SENT, FAILED), False), ((EXPIRED,), False), ((FAILED,), False)],
)
async def test_what_was_refused_or_never_sent_is_not_confirmed(
    tmp_path: Path, states: tuple[CommandState, ...], confirmed: bool
) -> None:
    confirmation, steps = await run(tmp_path / "s.db", states, [entry(1, 500)])
    assert (confirmation is not None) is confirmed
    assert steps == [QUEUED, *states, *([CONFIRMED] if confirmed else [])]


@pytest.mark.parametrize(("power_w", "observed_at"), [(0, 1_500), (430, 1_500), (-500, 1_500), (500, 2_001)])
async def test_another_power_or_time_confirms_nothing(tmp_path: Path, power_w: int, observed_at: int) -> None:
    confirmation, _ = await run(tmp_path / "s.db", (SENT, ACKED), [entry(1, power_w, observed_at)])
    assert confirmation is None


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(cuts=st.lists(st.integers(0, 12), max_size=6), powers=st.lists(st.sampled_from([0, 490, 500]), min_size=1))
def test_restarts_of_the_consumer_neither_repeat_nor_lose(
    cuts: list[int], powers: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Entries from any earlier position come again, as after a crash between the journal's and the store's word."""
    journal = [entry(number, power_w) for number, power_w in enumerate(powers, 1)]
    batches = [journal[cut % len(journal) :] for cut in cuts] + [journal]
    first = next((number for batch in batches for number in [e.position for e in batch if _shows(e)][:1]), None)
    confirmation, steps = asyncio.run(run(tmp_path_factory.mktemp("d") / "s.db", (SENT, ACKED), *batches))
    assert (confirmation.position if isinstance(confirmation, Confirmation) else None) == first
    assert steps.count(CONFIRMED) == (first is not None)


def _shows(one: Entry) -> bool:
    return one.measurements[0].registers["power_w"] >= 490


async def test_a_store_from_before_is_brought_forward(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    old = Component("dispatch", DISPATCH.migrations[:1])
    async with Store(path, [old]) as store:
        await store.write(
            lambda c: (
                c.execute(
                    "INSERT INTO dispatch_command VALUES ('t', 'c1', 'o-1', 'did:b', 'b', 'set_power', '{}', 0, 9, "
                    "'acked', 0, '', '{}')"
                )
                and None
            )
        )
    async with Store(path, [DISPATCH]) as store:
        (record,) = await Dispatcher(store, "t", Transport()).commands("o-1")
    assert (record.state, record.life, record.confirmation) == (ACKED, ACKED, None)
    backups = list(tmp_path.glob("s.db.backup-*"))
    assert backups and sqlite3.connect(backups[0]).execute("SELECT count(*) FROM dispatch_command").fetchone() == (1,)
