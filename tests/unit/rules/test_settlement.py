"""Settlement of a line against fractions, and baselines from history."""

from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_contracts.rules import baseline, settlement
from flexrelay_contracts.rules.baseline import MeteredDay, Prognosis

energies = st.integers(-(10**12), 10**12)
prices = st.integers(-(10**9), 10**9)
penalties = st.integers(0, 10**9)


@st.composite
def curves(draw: st.DrawFn) -> list[tuple[int, int]]:
    inner = draw(st.lists(st.integers(1, 999), unique=True, max_size=4).map(sorted))
    paid = draw(st.lists(st.integers(0, 1000), min_size=len(inner) + 2, max_size=len(inner) + 2).map(sorted))
    return list(zip([0, *inner, 1000], paid, strict=True))


def exact(line: settlement.Line) -> Fraction:
    assert 0 <= line.remainder < line.denominator
    return line.net_micro_eur + Fraction(line.remainder, line.denominator)


@given(energies, energies, energies, prices, penalties)
def test_a_line_is_the_formula(ordered: int, base: int, actual: int, price: int, penalty: int) -> None:
    line = settlement.settle(ordered, base, actual, price, penalty)
    size = abs(ordered)
    response = (actual - base) if ordered > 0 else (base - actual) if ordered < 0 else 0
    assert line.delivered_j == min(max(response, 0), size)
    assert line.deficiency_j == max(size - response, 0)
    assert exact(line) == Fraction(line.delivered_j * price - line.deficiency_j * penalty, 3_600_000)


@given(energies, energies, energies, prices, penalties)
def test_mirrored_signs_settle_alike(ordered: int, base: int, actual: int, price: int, penalty: int) -> None:
    line = settlement.settle(ordered, base, actual, price, penalty)
    assert settlement.settle(-ordered, -base, -actual, price, penalty) == line


@given(energies, energies, energies, prices, penalties, curves(), st.integers(0, 1000))
def test_a_payout_curve_interpolates(
    ordered: int, base: int, actual: int, price: int, penalty: int, curve: list[tuple[int, int]], tolerance: int
) -> None:
    line = settlement.settle(ordered, base, actual, price, penalty, curve=curve, tolerance_permille=tolerance)
    size = abs(ordered)
    expected = Fraction(0)
    if size:
        share = Fraction(line.delivered_j * 1000, size)
        for (x0, y0), (x1, y1) in pairwise(curve):
            if x0 <= share <= x1:
                paid = y0 + (y1 - y0) * (share - x0) / (x1 - x0)
                expected = size * price * paid / 1000
                break
    if Fraction(line.deficiency_j) > Fraction(size * tolerance, 1000):
        expected -= line.deficiency_j * penalty
    assert exact(line) == expected / 3_600_000


@given(energies, energies, energies, prices, penalties)
def test_the_straight_curve_is_no_curve(ordered: int, base: int, actual: int, price: int, penalty: int) -> None:
    straight = settlement.settle(ordered, base, actual, price, penalty, curve=[(0, 0), (1000, 1000)])
    assert exact(straight) == exact(settlement.settle(ordered, base, actual, price, penalty))


@given(st.integers(1, 10**9), energies, st.integers(0, 10**9), st.integers(0, 10**9), penalties)
def test_more_delivery_never_pays_less(ordered: int, base: int, first: int, more: int, penalty: int) -> None:
    less = settlement.settle(ordered, base, base + first, 100, penalty)
    assert exact(settlement.settle(ordered, base, base + first + more, 100, penalty)) >= exact(less)


@given(st.sampled_from((-1, 1)), st.integers(0, 10**9), energies, energies, penalties)
def test_rebound_beyond_the_room_costs(direction: int, room: int, base: int, actual: int, penalty: int) -> None:
    line = settlement.rebound(direction, room, base, actual, penalty)
    assert line.deficiency_j == max(direction * (actual - base) - room, 0)
    assert exact(line) == -Fraction(line.deficiency_j * penalty, 3_600_000)


def test_golden_line() -> None:
    """3 kW more for a quarter of an hour, 2.4 kW came: 600 Wh at 80 €/MWh less 150 Wh at 40 €/MWh is 0.042 €."""
    line = settlement.settle(750 * 3600, 1000 * 3600, 1600 * 3600, 80_000, 40_000)
    assert (line.delivered_j, line.deficiency_j) == (600 * 3600, 150 * 3600)
    assert line.net_micro_eur == 42_000


def test_a_tolerance_forgives_small_deficiencies_only() -> None:
    def net(actual: int) -> int:
        return settlement.settle(3_600_000, 0, actual, 1000, 1000, tolerance_permille=100).net_micro_eur

    assert net(3_240_000) == 900
    assert net(3_239_000) == 799  # 899.72… − 100.28… = 799.44…, floored once


def test_bad_terms_are_refused() -> None:
    with pytest.raises(ValueError, match="penalty is negative"):
        settlement.settle(1, 0, 1, 1, -1)
    with pytest.raises(ValueError, match="tolerance"):
        settlement.settle(1, 0, 1, 1, 1, tolerance_permille=1001)
    for curve in ([(0, 0)], [(1, 0), (1000, 1)], [(0, 0), (999, 1)], [(0, 5), (1000, 4)], [(0, 0), (0, 1), (1000, 2)]):
        with pytest.raises(ValueError, match="curve"):
            settlement.settle(1, 0, 1, 1, 1, curve=curve)
    with pytest.raises(ValueError, match="direction"):
        settlement.rebound(0, 1, 1, 1, 1)


def day(number: int, level: int, *, working: bool = True, event: bool = False, isps: int = 4) -> MeteredDay:
    return MeteredDay(f"2016-05-{number:02d}", (level,) * isps, working, event)


def test_history_leaves_out_events_holidays_odd_days_and_the_day_itself() -> None:
    days = [
        day(1, 1000),  # too long ago
        *[day(number, number) for number in (2, 3, 4, 5)],
        day(6, 1000, event=True),
        day(7, 1000, working=False),
        day(8, 1000, isps=3),
        day(9, 11),
        day(10, 1000),
        day(11, 1000),
    ]
    assert baseline.mean_of(days, "2016-05-10", 4) == (5, 5, 5, 5)  # (2+3+4+5+11) / 5
    assert baseline.mean_of(days[::-1], "2016-05-10", 4) == (5, 5, 5, 5)
    with pytest.raises(ValueError, match="6 usable days before 2016-05-10, the baseline needs 7"):
        baseline.mean_of(days, "2016-05-10", 4, count=7)
    with pytest.raises(ValueError, match="twice"):
        baseline.mean_of([*days, days[0]], "2016-05-10", 4)


def test_high_of_takes_the_days_with_most_energy_in_the_window() -> None:
    days = [MeteredDay(f"2016-05-{n:02d}", (0, n % 7, 100 - n), True, False) for n in range(1, 15)]
    assert baseline.high_of(days, "2016-05-20", 3, (2, 2), count=2, among=10) == (0, 6, 100 - 10)  # days 6 and 13
    with pytest.raises(ValueError, match="not in a day"):
        baseline.high_of(days, "2016-05-20", 3, (2, 4))
    with pytest.raises(ValueError, match="cannot be chosen"):
        baseline.high_of(days, "2016-05-20", 3, (1, 1), count=3, among=2)


def test_means_are_floored() -> None:
    days = [MeteredDay("2016-05-01", (-3,), True, False), MeteredDay("2016-05-02", (0,), True, False)]
    assert baseline.mean_of(days, "2016-05-03", 1, count=2) == (-2,)


def test_a_prognosis_that_contains_the_order_is_no_baseline() -> None:
    revisions = [Prognosis(1, (100, -50)), Prognosis(2, (200, -50), frozenset({"o1"}))]
    assert baseline.prognosis(revisions, 1, "o1", 900) == (90_000, -45_000)
    with pytest.raises(ValueError, match="contains order 'o1' already"):
        baseline.prognosis(revisions, 2, "o1", 900)
    assert baseline.prognosis(revisions, 2, "o2", 900) == (180_000, -45_000)
    with pytest.raises(ValueError, match="no revision 3"):
        baseline.prognosis(revisions, 3, "o1", 900)


def test_doubtful_nominations_are_named() -> None:
    assert baseline.doubtful((10, 20, -31), (10, 10, -100), 100) == (3,)
