"""What a range read in part is protected over: as much as Fabric's peer would have fetched for it."""

from collections.abc import Iterator
from itertools import islice

import pytest

from flexrelay.ledger.embedded.private import PrivateValues
from flexrelay.ledger.embedded.simulation import READ_AHEAD, RangeDigest, Simulation
from flexrelay.ledger.embedded.state import Entry, State
from flexrelay.ledger.port import Validation
from flexrelay_contracts.context import Creator


@pytest.fixture
def state() -> Iterator[State]:
    opened = State("")
    yield opened
    opened.close()


def fill(state: State, size: int) -> list[str]:
    names = [f"k{number:04}" for number in range(size)]
    entries = {name: Entry(b"v%d" % place, 7, place, None) for place, name in enumerate(names)}
    state.apply(0, bytes(32), {"0" * 64: Validation.VALID}, entries)
    return names


def simulation(state: State) -> Simulation:
    return Simulation(
        state, PrivateValues(":memory:"), tx_id="0" * 64, tx_time=0, creator=Creator("dso", "i"), transient={},
        members={}, endorsing=("dso",),
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 2, 99, 100, 101, 102, 199, 200, 201, 202, 450])
@pytest.mark.parametrize("taken", [1, 2, 99, 100, 101, 200, 201, 300, 1000])
def test_what_was_fetched_is_recorded(state: State, size: int, taken: int) -> None:
    names = fill(state, size)
    context = simulation(state)
    found = list(islice(iter(context.range("k", "l")), taken))
    assert found == [(name, b"v%d" % place) for place, name in enumerate(names)][:taken]
    context.finish()
    batches = max(-(-min(taken, size) // READ_AHEAD), 1)  # the next one is asked for with its first entry
    if taken > size and size and not size % READ_AHEAD:
        batches = size // READ_AHEAD  # the look behind the last batch has found the end
    whole = size <= batches * READ_AHEAD
    fetched = size if whole else batches * READ_AHEAD + 1
    end = "l" if whole else names[fetched - 1] + "\x00"
    digest = RangeDigest()
    for row in state.versions("k", end):
        digest.add(*row)
    assert context.ranges == [("k", end, fetched, digest.hex())]
    assert digest.count == fetched


def test_a_range_that_nobody_iterates_is_protected_over_nothing(state: State) -> None:
    fill(state, 3)
    context = simulation(state)
    context.range("k", "l")
    context.finish()
    assert [row[:3] for row in context.ranges] == [("k", "k", 0)]


def test_the_furthest_of_several_iterations_counts(state: State) -> None:
    names = fill(state, 350)
    context = simulation(state)
    found = context.range("k", "l")
    for taken in (150, 1, 201, 50):
        assert [name for name, _ in islice(iter(found), taken)] == names[:taken]
    context.finish()
    assert [row[:3] for row in context.ranges] == [("k", names[300] + "\x00", 301)]
    assert [name for name, _ in found] == names
    context.finish()
    assert [row[:3] for row in context.ranges] == [("k", "l", 350)]
