"""Options with a minimum activation against exhaustive enumeration."""

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrelay_contracts.rules import activation
from flexrelay_contracts.rules.activation import Option, Selection, select


def objective(need: tuple[int, ...], options: list[Option], percents: dict[str, int]) -> tuple[int, int]:
    """(uncovered in need / 100,000, cost × percent) of activations, computed apart from the search."""
    left = [value * 100_000 for value in need]
    cost = 0
    for option in options:
        percent = percents.get(option.id, 0)
        cost += option.price * percent
        left = [
            have - power * option.sensitivity_permille * percent
            for have, power in zip(left, option.powers, strict=True)
        ]
    return sum(max(0, have) for have in left), cost


def brute_force(need: tuple[int, ...], options: list[Option]) -> tuple[int, int]:
    """Every admissible combination: at most one option per offer, each at 0 or min..100 percent."""
    choices: dict[str, list[tuple[str, int]]] = {}
    for option in options:
        entries = choices.setdefault(option.offer, [("", 0)])
        entries += [(option.id, percent) for percent in range(option.min_percent, 101)]
    return min(objective(need, options, dict(combination)) for combination in product(*choices.values()))


def check(need: tuple[int, ...], options: list[Option], result: Selection) -> tuple[int, int]:
    by_id = {option.id: option for option in options}
    offers = [by_id[chosen.option].offer for chosen in result.activations]
    assert len(offers) == len(set(offers))
    for chosen in result.activations:
        assert by_id[chosen.option].min_percent <= chosen.percent <= 100
    assert [chosen.option for chosen in result.activations] == sorted(chosen.option for chosen in result.activations)
    found = objective(need, options, {chosen.option: chosen.percent for chosen in result.activations})
    assert found == (sum(result.uncovered), result.cost_percent)
    assert result.uncovered_bound <= found[0]
    assert result.cost_bound <= found[1]
    return found


@st.composite
def cases(draw: st.DrawFn, most: int, least_percent: int, groups: int = 99) -> tuple[tuple[int, ...], list[Option]]:
    isps = draw(st.integers(1, 3))
    need = draw(st.tuples(*[st.integers(0, 12)] * isps))
    count = draw(st.integers(0, most))
    options = [
        Option(
            f"o{index}",
            f"f{index % groups}",
            draw(st.tuples(*[st.integers(0, 8)] * isps)),
            draw(st.integers(0, 9)),
            draw(st.integers(least_percent, 100)),
            draw(st.sampled_from((1000, 1000, 500, 0))),
        )
        for index in range(count)
    ]
    return need, options


@given(cases(8, 100, 5))
def test_blocks_are_selected_exactly(case: tuple[tuple[int, ...], list[Option]]) -> None:
    need, options = case
    result = select("x", need, options)
    assert result.method == "exact"
    assert check(need, options, result) == brute_force(need, options)


@settings(max_examples=60)
@given(cases(3, 75))
def test_partial_options_are_selected_exactly(case: tuple[tuple[int, ...], list[Option]]) -> None:
    need, options = case
    result = select("x", need, options)
    assert result.method == "exact"
    assert check(need, options, result) == brute_force(need, options)


@given(cases(6, 40, 4), st.integers(1, 20))
def test_a_search_that_is_cut_short_says_so_and_its_bound_holds(
    case: tuple[tuple[int, ...], list[Option]], nodes: int
) -> None:
    need, options = case
    full = select("x", need, options)
    cut = select("x", need, options, nodes=nodes)
    best = check(need, options, full)
    found = check(need, options, cut)
    if full.method == "exact":
        assert found >= best
        assert cut.uncovered_bound <= best[0]
        if best[0] <= found[0] and cut.method == "bounded":
            assert found[0] > best[0] or cut.cost_bound <= best[1]
        if cut.method == "exact":
            assert found == best


@given(cases(6, 50, 4), st.randoms())
def test_the_order_of_arrival_does_not_matter(case: tuple[tuple[int, ...], list[Option]], dice: random.Random) -> None:
    need, options = case
    before = select("x", need, options)
    dice.shuffle(options)
    assert select("x", need, options) == before


@given(cases(9, 1))
def test_the_first_selection_already_covers_all_that_can_be(case: tuple[tuple[int, ...], list[Option]]) -> None:
    """With one option per offer, taking what helps and trimming what is too much never gives up coverage."""
    need, options = case
    result = select("x", need, options, nodes=1)
    check(need, options, result)
    everything = {option.id: 100 for option in options}
    assert sum(result.uncovered) == objective(need, options, everything)[0] == result.uncovered_bound


def test_the_stated_number_of_blocks_is_always_exact() -> None:
    """EXACT_BLOCKS equal-looking blocks over 96 intervals leave the bounds nothing to cut."""
    dice = random.Random(3)
    need = tuple(dice.randint(400, 500) for _ in range(96))
    options = [
        Option(f"o{index:02d}", f"f{index}", tuple(dice.randint(60, 90) for _ in range(96)), 1000, 100)
        for index in range(activation.EXACT_BLOCKS)
    ]
    assert select("x", need, options).method == "exact"


def test_many_offers_are_bounded_and_nearly_as_good_as_the_bound() -> None:
    dice = random.Random(4)
    need = tuple(dice.randint(0, 4000) for _ in range(24))
    options = [
        Option(f"o{index:03d}", f"f{index}", tuple(dice.randint(5, 30) for _ in range(24)), dice.randint(50, 900), 30)
        for index in range(400)
    ]
    result = select("x", need, options)
    check(need, options, result)
    assert result.method == "bounded"
    assert sum(result.uncovered) == 0
    assert 0 < result.cost_bound <= result.cost_percent


def test_a_dear_block_is_passed_over_for_two_cheap_ones() -> None:
    options = [
        Option("big", "f1", (10, 10), 900, 100),
        Option("half1", "f2", (5, 5), 300, 50),
        Option("half2", "f3", (6, 6), 400, 50),
    ]
    result = select("x", (10, 10), options)
    assert result.method == "exact"
    assert [(chosen.option, chosen.percent) for chosen in result.activations] == [("half1", 98), ("half2", 85)]
    assert result.cost_percent == 300 * 98 + 400 * 85  # less than with 100 and 84 percent


def test_bad_options_are_refused() -> None:
    good = Option("o", "f", (1,), 1, 100)
    for options, message in (
        ([good, good], "stands twice"),
        ([Option("o", "f", (1, 2), 1, 100)], "has 2 intervals"),
        ([Option("o", "f", (-1,), 1, 100)], "negative"),
        ([Option("o", "f", (1,), -1, 100)], "negative"),
        ([Option("o", "f", (1,), 1, 0)], "minimum activation of 0"),
        ([Option("o", "f", (1,), 1, 100, 1001)], "sensitivity"),
    ):
        with pytest.raises(ValueError, match=message):
            select("x", (1,), options)
    with pytest.raises(ValueError, match="negative in an interval"):
        select("x", (-1,), [])
