"""Register checks against a model that knows everything, with a history that lags behind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrelay.ingest.registers import KEEP, Inconsistent, Judged, NoHistory, RegisterChecks
from flexrelay.ingest.tail import Point
from flexrelay.journal.registers import cumulative, pack_registers
from flexrelay.journal.segment import Trace
from flexrelay_schemas.quality import Notice

DID = "did:flexrelay:test:zDevice"


@dataclass
class Lagging:
    """A history over a list of everything stored: it answers for positions up to `position` only."""

    stored: list[Point] = field(default_factory=list)
    position: int = 0
    exchanges: tuple[int, ...] = ()
    scans: int = 0
    questions: int = 0

    def newest(self, did: str, count: int) -> Sequence[Point]:
        return sorted(self.stored[: self.position])[-count:]

    def nearest(self, did: str, instant: int, *, earlier: bool, register: int | None = None) -> Point | None:
        self.questions += 1
        found = [
            point
            for point in self.stored[: self.position]
            if (point.observed_at <= instant) is earlier
            and (register is None or cumulative(point.packed)[register] is not None)
        ]
        return (max(found) if earlier else min(found)) if found else None

    def exchanged(self, did: str, after: int, until: int) -> bool:
        return any(after < at <= until for at in self.exchanges)

    def tail(self, after: int) -> Iterator[list[Trace]]:
        self.scans += 1
        yield [(index + 1, DID.encode(), *point) for index, point in enumerate(self.stored) if index + 1 > after]


def model(stored: list[Point], exchanges: tuple[int, ...], new: Point) -> str | int:
    """The verdict by the written rules: "duplicate", a refusal's reason, or the notice's bits."""
    same = [point for point in stored if point.observed_at == new.observed_at]
    if same:
        return "duplicate" if same[0].packed == new.packed else "equivocation"
    before = sorted(point for point in stored if point.observed_at < new.observed_at)
    after = sorted(point for point in stored if point.observed_at > new.observed_at)
    if new.seq >= 0:
        if before and before[-1].seq >= 0 and new.seq <= before[-1].seq:
            return "replay"
        if after and after[0].seq >= 0 and new.seq >= after[0].seq:
            return "replay"
    notice = int(Notice.BACKFILLED) if after else 0
    if not after and before and new.seq >= 0 and before[-1].seq >= 0 and new.seq > before[-1].seq + 1:
        notice |= int(Notice.GAP)
    for register in (0, 1):
        value = cumulative(new.packed)[register]
        if value is None:
            continue
        pairs = []
        lower = [point for point in before if cumulative(point.packed)[register] is not None]
        upper = [point for point in after if cumulative(point.packed)[register] is not None]
        if lower and (cumulative(lower[-1].packed)[register] or 0) > value:
            pairs.append((lower[-1].observed_at, new.observed_at))
        if upper and (cumulative(upper[0].packed)[register] or 0) < value:
            pairs.append((new.observed_at, upper[0].observed_at))
        for start, end in pairs:
            if not any(start < at <= end for at in exchanges):
                return "register_backwards"
            notice |= int(Notice.ROLLOVER)
    return notice


registers = st.one_of(
    st.fixed_dictionaries({"import_j": st.integers(0, 12), "export_j": st.integers(0, 12)}),
    st.fixed_dictionaries({"import_j": st.integers(0, 12)}),
    st.fixed_dictionaries({"export_j": st.integers(0, 12), "power_w": st.integers(-2, 2)}),
    st.fixed_dictionaries({"power_w": st.integers(-2, 2)}),
)
points = st.builds(Point, st.integers(1, 40), st.one_of(st.just(-1), st.integers(0, 40)), registers.map(pack_registers))
steps = st.lists(st.one_of(points, st.sampled_from(["commit", "fail", "catch up", "restart"])), min_size=1, max_size=60)


@settings(max_examples=1500, deadline=None)
@given(steps, st.lists(st.integers(1, 40), max_size=2).map(tuple))
def test_the_verdict_is_the_models(steps: list[Point | str], exchanges: tuple[int, ...]) -> None:
    history = Lagging(exchanges=exchanges)
    checks = RegisterChecks(history, history.tail)
    batch: list[Point] = []
    for step in steps:
        match step:
            case "commit":
                history.stored += batch
                batch = []
                checks.commit(len(history.stored))
            case "fail":
                batch = []
                checks.roll_back()
            case "catch up":
                history.position = len(history.stored)
            case "restart":
                batch = []
                checks = RegisterChecks(history, history.tail)
                assert checks.prime() == len(history.stored) - history.position
            case Point():
                expected = model(history.stored + batch, exchanges, step)
                try:
                    judged = checks.admit(DID, *step)
                except Inconsistent as error:
                    found: str | int = error.reason
                else:
                    found = "duplicate" if judged.duplicate else judged.notice
                    if not judged.duplicate:
                        batch.append(step)
                assert found == expected
    instants = sorted(point.observed_at for point in history.stored + batch)
    assert checks.newest(DID) == max(instants, default=None)
    for instant in range(0, 42, 3):
        assert checks.following(DID, instant) == next((at for at in instants if at >= instant), None)


def test_the_export_before_may_be_older_than_memory() -> None:
    history = Lagging(exchanges=(2,))
    checks = RegisterChecks(history, history.tail)
    for at in (2, 5, 6, 1, 4):
        values = {"import_j": 0} | ({1: {"export_j": 1}, 4: {"export_j": 0}}.get(at, {}))
        history.stored.append(Point(at, -1, pack_registers(values)))
        checks.admit(DID, *history.stored[-1])
    checks.commit(5)
    judged = checks.admit(DID, 3, -1, pack_registers({"import_j": 0, "export_j": 0}))
    assert judged.notice == Notice.BACKFILLED | Notice.ROLLOVER


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 3)), min_size=20, max_size=80))
def test_rising_readings_in_any_order_all_come_in(order: list[tuple[int, int]]) -> None:
    history = Lagging()
    checks = RegisterChecks(history, history.tail)
    for at, action in order:
        point = Point(at, at, pack_registers({"import_j": at, "export_j": at * 2}))
        judged = checks.admit(DID, *point)
        assert judged.duplicate is (point in history.stored)
        if not judged.duplicate:
            history.stored.append(point)
        checks.commit(len(history.stored))
        if action == 0:
            history.position = len(history.stored)


def test_memory_of_a_device_is_bounded() -> None:
    history = Lagging()
    checks = RegisterChecks(history, history.tail)
    for at in range(1, 500):
        checks.admit(DID, at, at, pack_registers({"import_j": at} if at % 50 == 0 else {"power_w": at}))
        checks.commit(at)
    state = checks._states[DID]
    assert len(state.points) <= KEEP + 1 and len(state.floor) <= 2


def test_the_message_names_register_values_and_instants() -> None:
    checks = RegisterChecks(NoHistory(), lambda after: ())
    assert checks.admit(DID, 10, 1, pack_registers({"import_j": 7})) == Judged(False, 0)
    with pytest.raises(Inconsistent, match=r"import_j is 7 at 10 and 6 at 11; a meter exchange") as caught:
        checks.admit(DID, 11, 2, pack_registers({"import_j": 6}))
    assert (caught.value.reason, caught.value.field) == ("register_backwards", "import_j")


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("caught_up", [False, True])
def test_a_register_may_not_fall_however_long_it_was_not_sent(restart: bool, caught_up: bool) -> None:
    history = Lagging()
    checks = RegisterChecks(history, history.tail)
    sent = [{"import_j": 100, "export_j": 3}] + [{"power_w": at} for at in range(30)] + [{"export_j": 4}]
    for at, values in enumerate(sent):
        history.stored.append(Point(at, at, pack_registers(values)))
        checks.admit(DID, *history.stored[-1])
        checks.commit(len(history.stored))
    history.position = len(history.stored) if caught_up else 0
    if restart:
        checks = RegisterChecks(history, history.tail)
        checks.prime()
    with pytest.raises(Inconsistent, match="import_j is 100 at 0 and 99 at 50"):
        checks.admit(DID, 50, 50, pack_registers({"import_j": 99}))
    assert not checks.admit(DID, 50, 50, pack_registers({"import_j": 100})).duplicate


def redelivered(history: Lagging, count: int, batch: int) -> tuple[int, int]:
    """`count` readings are stored and all come again, `batch` at a time: (scans of the tail, questions to the
    history) that the second time cost."""
    checks = RegisterChecks(history, history.tail)
    for at in range(count):
        history.stored.append(Point(at, at, pack_registers({"import_j": at, "export_j": 0})))
        checks.admit(DID, *history.stored[-1])
        checks.commit(len(history.stored))
    caught_up, history.position = history.position, min(history.position, count)
    scans, questions = history.scans, history.questions
    for place, point in enumerate(list(history.stored)):
        assert checks.admit(DID, *point).duplicate
        with pytest.raises(Inconsistent, match="other registers"):
            checks.admit(DID, point.observed_at, point.seq, pack_registers({"import_j": 7, "export_j": 1}))
        if place % batch == batch - 1:
            new = Point(count + place, count + place, pack_registers({"import_j": count, "export_j": 0}))
            checks.admit(DID, *new)
            history.stored.append(new)
            checks.commit(len(history.stored))
            history.position = min(caught_up, len(history.stored))
    return history.scans - scans, history.questions - questions


def test_what_comes_again_reads_the_tail_once_a_batch_at_most() -> None:
    scans, _ = redelivered(Lagging(), 1000, 100)
    assert scans <= 10


def test_what_comes_again_asks_the_history_once_a_reading() -> None:
    scans, questions = redelivered(Lagging(position=10_000), 1000, 100)
    assert scans == 0
    assert questions <= 2 * 1000  # each came twice: as it was, and with other registers


def test_the_index_of_the_tail_goes_when_the_history_has_caught_up() -> None:
    history = Lagging()
    checks = RegisterChecks(history, history.tail)
    for at in range(100):
        history.stored.append(Point(at, at, pack_registers({"import_j": at})))
        checks.admit(DID, *history.stored[-1])
        checks.commit(at + 1)
    assert checks.admit(DID, *history.stored[3]).duplicate
    assert checks._index._keys
    history.position = 100
    checks.commit(100)
    assert not checks._index._keys
    assert checks.admit(DID, *history.stored[3]).duplicate
