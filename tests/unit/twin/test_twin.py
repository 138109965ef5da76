"""State, history and energy of devices, built from the journal."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.contracts import Party
from support.readings import NOW, IngestPath, PlainCodec, frame_of, ingest_path

from flexrelay.ingest import Point
from flexrelay.journal.consumer import catch_up
from flexrelay.store import Store
from flexrelay.twin import TWIN, Energy, Exchange, Twin, TwinHistory, energy, register_at
from flexrelay_schemas.entities import DeviceInfo
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance

T0 = NOW - 10_000_000


@dataclass
class Side:
    path: IngestPath
    twin: Twin
    store: Store

    async def put(self, party: Party, *payloads: str) -> None:
        frames = [frame_of(party.did, payload.encode()) for payload in payloads]
        await self.path.ingest.put(frames, PlainCodec())
        await catch_up(self.path.journal, self.twin)


@asynccontextmanager
async def side_of(folder: Path, *parties: Party, kinds: dict[str, str] | None = None) -> AsyncIterator[Side]:
    def describe(did: str) -> DeviceInfo | None:
        kind = (kinds or {}).get(did)
        return None if kind is None else DeviceInfo(did, kind)

    async with ingest_path(folder, unsigned=parties) as path, Store(folder / "twin.db", [TWIN]) as store:
        yield Side(path, await Twin.open(store, describe), store)


def reading(at: int, imported: int, exported: int = 0, **more: int) -> str:
    extra = "".join(f', "{name}": {value}' for name, value in more.items())
    return f'{{"t": {at}, "import_j": {imported}, "export_j": {exported}{extra}}}'


async def test_the_last_reading_of_an_interval_is_the_one_that_closes_it_however_many_there_are(tmp_path: Path) -> None:
    meter = Party.new("device")
    count = 10_050  # more than a page of the history
    async with side_of(tmp_path, meter) as side:
        await side.put(meter, *(reading(T0 + number, number) for number in range(1, count + 1)))
        last = await side.twin.last(meter.did, T0 + 1, T0 + count - 1)
        assert last is not None and last.observed_at == T0 + count - 1
        assert await side.twin.last(meter.did, T0 - 5, T0) is None
        assert await side.twin.last("did:flexrelay:test:nobody", T0, T0 + count) is None


async def test_newest_state_and_history_survive_reordering_and_a_restart(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with side_of(tmp_path, meter, kinds={meter.did: "pv"}) as side:
        await side.put(meter, reading(T0 + 2000, 20, power_w=-5), reading(T0 + 1000, 10), reading(T0 + 3000, 30))
        await side.put(meter, reading(T0 + 500, 5))
        newest = await side.twin.newest(meter.did)
        assert newest is not None and newest.observed_at == T0 + 3000
        history = await side.twin.history(meter.did, T0 + 500, T0 + 2000)
        assert [item.registers["import_j"] for item in history] == [5, 10, 20]
        assert [item.notice for item in history] == [Notice.BACKFILLED, Notice.BACKFILLED, Notice.NONE]
        entity = await side.twin.entity(meter.did)
        assert entity is not None
        assert entity["type"] == "PhotovoltaicMeasurement"
        entities = await side.twin.entities(meter.did, T0, T0 + 2000)
        assert entities[-1]["activePower"]["value"] == 0.005  # kW that the plant produces
        again = await Twin.open(side.store, lambda did: None)
        assert again.position == side.twin.position == 4
        assert await again.newest(meter.did) == newest
        assert await again.position_of(meter.did, T0 + 500) == 4
        assert await again.newest("did:flexrelay:test:z") is None


async def test_entries_that_come_again_change_nothing(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with side_of(tmp_path, meter) as side:
        await side.put(meter, reading(T0, 1), reading(T0 + 1, 2))
        before = await side.twin.history(meter.did, 0, NOW)
        await side.twin.consume(await side.path.journal.read(0, 10))
        assert await side.twin.history(meter.did, 0, NOW) == before


async def test_a_wrong_description_costs_the_entity_only(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with side_of(tmp_path, meter, kinds={meter.did: "toaster"}) as side:
        await side.put(meter, reading(T0, 1))
        assert await side.twin.entity(meter.did) is None
        assert await side.twin.newest(meter.did) is not None


async def test_pruning_keeps_what_the_next_reading_is_judged_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flexrelay.twin.twin.PRUNE_AT_ONCE", 2)
    meters = [Party.new("device") for _ in range(5)]
    async with side_of(tmp_path, *meters, kinds={meters[0].did: "toaster"}) as side:
        for meter in meters:
            powers = [f'{{"t": {T0 + n}, "power_w": 1}}' for n in range(10, 20)]
            await side.put(meter, reading(T0, 1), f'{{"t": {T0 + 5}, "import_j": 5}}', *powers)
        await side.put(meters[4], reading(T0 + 100, 9, 9))
        assert await side.twin.prune(T0 + 15) == 4 * 5 + 7
        for meter in meters[:4]:
            left = [item.observed_at - T0 for item in await side.twin.history(meter.did, 0, NOW)]
            assert left == [0, 5, 15, 16, 17, 18, 19]
        assert await side.twin.prune(NOW) == 4 * 4 + 5
        assert [item.observed_at - T0 for item in await side.twin.history(meters[1].did, 0, NOW)] == [0, 5, 19]
        assert [item.observed_at - T0 for item in await side.twin.history(meters[4].did, 0, NOW)] == [100]


async def test_energy_is_the_difference_of_registers(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with side_of(tmp_path, meter) as side:
        await side.put(meter, reading(T0, 1000, 50), reading(T0 + 900_000, 4600, 80), reading(T0 + 1_800_000, 5000, 80))
        exact = await energy(side.twin, meter.did, T0, T0 + 900_000)
        assert exact == Energy(3600, 30, Provenance.GATEWAY_ATTESTED)
        assert exact.net_j == 3570
        half = await energy(side.twin, meter.did, T0, T0 + 450_000)
        assert half == Energy(1800, 15, Provenance.ESTIMATED)
        assert await energy(side.twin, meter.did, T0, T0 + 1_800_001) is None
        assert await energy(side.twin, meter.did, T0 - 1, T0) is None
        assert await energy(side.twin, meter.did, T0, T0 + 450_000, max_gap=899_999) is None
        with pytest.raises(ValueError, match="ends"):
            await energy(side.twin, meter.did, T0 + 1, T0)


async def test_energy_goes_on_over_a_declared_exchange(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with side_of(tmp_path, meter) as side:
        await side.twin.declare(meter.did, Exchange(T0 + 500, import_final=1500, import_initial=100, export_final=9))
        with TwinHistory(side.twin, side.store.path) as history:
            assert history.exchanged(meter.did, T0 + 499, T0 + 500)
            assert not history.exchanged(meter.did, T0 + 500, T0 + 600)
        items = [Measurement(meter.did, T0, {"import_j": 1000, "export_j": 5})]
        items += [Measurement(meter.did, T0 + 1000, {"import_j": 600, "export_j": 1})]
        await side.twin.consume([entry_of(meter, index + 1, item) for index, item in enumerate(items)])
        found = await energy(side.twin, meter.did, T0, T0 + 1000)
        assert found == Energy(500 + 500, 4 + 1, Provenance.GATEWAY_ATTESTED)


def entry_of(party: Party, position: int, *measurements: Measurement):  # type: ignore[no-untyped-def]
    from flexrelay.journal import Entry

    return Entry(position, 0, party.did, "mqtt", "c", "", NOW, False, b"{}", measurements)


class Memory:
    """Readings in a list."""

    def __init__(self, values: list[tuple[int, int]]) -> None:
        self.values = [Measurement("d", at, {"import_j": value, "export_j": 0}) for at, value in values]
        self.exchanges: dict[str, tuple[Exchange, ...]] = {}

    async def around(self, did: str, instant: int) -> tuple[Measurement | None, Measurement | None]:
        before = [item for item in self.values if item.observed_at <= instant]
        after = [item for item in self.values if item.observed_at > instant]
        return (before[-1] if before else None), (after[0] if after else None)


@given(
    st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 10**12)), min_size=2, max_size=12),
    st.data(),
)
async def test_interpolated_registers_never_fall_and_parts_add_up(
    steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    at = value = 0
    values = []
    for length, grown in steps:
        at, value = at + length, value + grown
        values.append((at, value))
    memory = Memory(values)
    instants = sorted(data.draw(st.lists(st.integers(values[0][0], at), min_size=3, max_size=3)))
    found = [await register_at(memory, "d", instant) for instant in instants]
    registers = [item.import_j for item in found if item is not None]
    assert len(registers) == 3 and registers == sorted(registers)
    parts = [await energy(memory, "d", a, b) for a, b in pairwise(instants)]
    whole = await energy(memory, "d", instants[0], instants[-1])
    assert whole is not None and whole.import_j == sum(part.import_j for part in parts if part)


async def test_the_history_answers_for_the_register_checks(tmp_path: Path) -> None:
    meter = Party.new("device")
    async with side_of(tmp_path, meter) as side:
        payloads = [reading(T0 + n, n) for n in range(0, 10, 2)] + [f'{{"t": {T0 + 20}, "power_w": 1}}']
        await side.put(meter, *payloads)
        with TwinHistory(side.twin, side.store.path) as history:
            assert [point.observed_at for point in history.newest(meter.did, 2)] == [T0 + 8, T0 + 20]
            nearest = history.nearest(meter.did, T0 + 21, earlier=True, register=0)
            assert isinstance(nearest, Point) and nearest.observed_at == T0 + 8
            later = history.nearest(meter.did, T0 + 4, earlier=False)
            assert later is not None and later.observed_at == T0 + 6
            assert history.nearest(meter.did, T0 - 1, earlier=True) is None
            assert history.position == 6
