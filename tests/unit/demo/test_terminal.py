"""The pictures as text: widths, bars, the need, and which ISPs are over the limit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrelay.demo.plots import Offer, TransformerDay
from flexrelay.demo.terminal import merit_order_text, transformer_text

OFFERS = [
    Offer("B", "roof", 20_000, 90_000, 5_000),
    Offer("A", "battery 1", 10_000, 60_000, 10_000),
    Offer("A", "battery 2", 15_000, 120_000),
]


def test_merit_order_as_text() -> None:
    lines = merit_order_text(OFFERS, 15_000, 70).splitlines()
    assert len(lines) == 5
    assert [line.split()[0] for line in lines[1:3]] == ["10", "30"]
    assert lines[1].endswith("10 kW")
    assert lines[2].endswith("5 of 20")
    assert lines[3].startswith("── need 15 kW ─")
    assert len(lines[3]) == 70
    assert lines[4].endswith("–")
    assert lines[4].count("█") == 2 * lines[1].count("█") > 0


def test_a_need_that_is_not_reached_is_said() -> None:
    assert "need 100 kW is not reached" in merit_order_text(OFFERS, 100_000).splitlines()[-1]


@given(
    st.lists(
        st.builds(
            Offer,
            st.text("AB", min_size=1, max_size=40),
            st.just("x"),
            st.integers(1, 10**6),
            st.integers(-(10**6), 10**6),
            st.just(0),
        ),
        min_size=1,
        max_size=15,
    ),
    st.integers(0, 10**7),
    st.integers(60, 140),
)
def test_no_line_is_too_wide(offers: list[Offer], need: int, width: int) -> None:
    lines = merit_order_text(offers, need, width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == len(offers) + 1 + (need > 0)


def _day(without: list[int], measured: list[int]) -> TransformerDay:
    return TransformerDay("20 May 2016", 900, [0] * len(without), without, measured, 160_000, -160_000)


def test_what_was_avoided_is_shown_below_what_was_measured() -> None:
    without = [0] * 40 + [-240_000] * 16 + [0] * 40
    measured = [0] * 40 + [-120_000] * 16 + [0] * 40
    lines = transformer_text(_day(without, measured), 57, 18).splitlines()
    body = [line for line in lines if line[8:9] in "│┤┼"]
    assert len(body) == 18
    full = [line.count("█") for line in body]
    avoided = [line.count("░") for line in body]
    assert set(full) <= {0, 8}  # 16 ISPs, two a column
    assert full.count(8) == pytest.approx(avoided.count(8), abs=1)
    assert full.index(8) < avoided.index(8)
    limit = next(i for i, line in enumerate(body) if line.split("┤")[0].strip() == "−160")
    assert avoided[limit] == 8
    assert "┄" in body[limit]
    assert any(line.split("┼")[0].strip() == "0" for line in body)


def test_the_worst_isp_of_a_column_is_the_one_that_is_shown() -> None:
    quiet, spike = [0] * 96, [0] * 96
    spike[51] = -200_000
    shown = transformer_text(_day(spike, spike), 57)
    assert shown.count("█") > transformer_text(_day(quiet, quiet), 57).count("█")


@settings(max_examples=25)
@pytest.mark.parametrize("isps", [92, 96, 100])
@pytest.mark.parametrize("width", [48, 78, 106, 200])
@given(data=st.data())
def test_any_day_fits(isps: int, width: int, data: st.DataObject) -> None:
    series = st.lists(st.integers(-400_000, 400_000), min_size=isps, max_size=isps)
    day = _day(data.draw(series), data.draw(series))
    height = data.draw(st.integers(8, 40))
    lines = transformer_text(day, width, height).splitlines()
    assert len(lines) == height + 3
    assert max(map(len, lines[:-1])) <= width
    assert lines[-2].strip().startswith("└00h")
    assert sum("┄" in line for line in lines[1:-2]) <= 2


@pytest.mark.parametrize(("width", "height"), [(47, 18), (78, 7)])
def test_too_small_a_screen_is_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="too few"):
        transformer_text(_day([0] * 96, [0] * 96), width, height)
    with pytest.raises(ValueError, match="too few"):
        merit_order_text(OFFERS, 1, 59)
    with pytest.raises(ValueError, match="at least one offer"):
        merit_order_text([], 1)
