"""The order of carrying, against a plain model."""

import time

from hypothesis import given
from hypothesis import strategies as st

from flexrelay.relay.lanes import Lanes

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(["", "a", "b"]), st.one_of(st.none(), st.integers(0, 5))),
        st.tuples(st.just("take"), st.just(""), st.none()),
        st.tuples(st.just("done"), st.just(""), st.integers(0, 5)),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_head_of_the_most_hurried_key_goes(steps: list[tuple[str, str, int | None]]) -> None:
    lanes = Lanes()
    waiting: list[tuple[int, str, float]] = []
    taken: dict[int, str] = {}
    count = 0
    for what, key, number in steps:
        if what == "add":
            count += 1
            lanes.add(count, key, number)
            waiting.append((count, key or f"free-{count}", float("inf") if number is None else number))
        elif what == "take":
            free = [item for item in waiting if item[1] not in taken.values()]
            heads = {item[1]: item for item in reversed(free)}
            urgency = {k: min(gate for _, other, gate in free if other == k) for k in heads}
            expected = min(heads.values(), key=lambda item: (urgency[item[1]], item[0]), default=None)
            got = lanes.take()
            assert got == (None if expected is None else expected[0])
            if expected is not None:
                waiting.remove(expected)
                taken[expected[0]] = expected[1]
        elif taken:
            entry = sorted(taken)[(number or 0) % len(taken)]
            del taken[entry]
            lanes.done(entry)
        assert len(lanes) == len(waiting)


def test_ten_thousand_in_one_key_cost_no_more_than_each_in_its_own() -> None:
    def cost(keys: int) -> float:
        began = time.process_time()
        lanes = Lanes()
        for n in range(10_000):
            lanes.add(n, f"k{n % keys}", 10_000 - n)
        while (entry := lanes.take()) is not None:
            lanes.done(entry)
        return time.process_time() - began

    assert cost(1) < 20 * cost(10_000) + 0.5
