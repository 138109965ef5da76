"""The SVG pictures, read back as XML: every value is where the axes say it is."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexrelay.demo.plots import Offer, TransformerDay, in_merit_order, merit_order_svg, transformer_svg
from flexrelay.demo.svg import HEIGHT, WIDTH, Canvas, Range, number, ticks

SVG = "{http://www.w3.org/2000/svg}"
POWERS = st.lists(st.integers(-300_000, 300_000), min_size=96, max_size=96)
DAY = TransformerDay(
    "20 May 2016", 900, [-50_000] * 96, [-200_000] * 96, [-150_000] * 48 + [40_000] * 48, 160_000, -160_000
)
OFFERS = [
    Offer("B", "roof <2>", 20_000, 90_000, 5_000),
    Offer("A", "battery 1", 10_000, 60_000, 10_000),
    Offer("A", "battery 2", 15_000, 120_000),
]


def _parse(text: str) -> ET.Element:
    return ET.fromstring(text)


def _texts(root: ET.Element, kind: str = "") -> list[str]:
    return [e.text or "" for e in root.iter(f"{SVG}text") if kind in (e.get("class") or "").split() or not kind]


def _by_class(root: ET.Element, tag: str, kind: str) -> list[ET.Element]:
    return [e for e in root.iter(f"{SVG}{tag}") if e.get("class") == kind]


def _points(element: ET.Element) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in (element.get("points") or "").split()]
    return [(float(x), float(y)) for x, y in pairs]


def _scale(root: ET.Element) -> tuple[float, float]:
    """(value at y = 0, value per pixel) of the vertical axis, from its grid lines and their numbers."""
    lines = [float(e.get("y1") or 0) for e in _by_class(root, "line", "grid")]
    values = [float(t.replace("−", "-")) for t in _texts(root, "end")]
    per_pixel = (values[-1] - values[0]) / (lines[-1] - lines[0])
    return values[0] - lines[0] * per_pixel, per_pixel


@settings(max_examples=30)
@given(POWERS, POWERS, POWERS)
def test_every_isp_is_drawn_where_the_axis_says(
    forecast: Sequence[int], without: Sequence[int], measured: Sequence[int]
) -> None:
    day = TransformerDay("20 May 2016", 900, forecast, without, measured, 160_000, -160_000)
    root = _parse(transformer_svg(day, title="t"))
    zero, per_pixel = _scale(root)
    for kind, series in (("forecast", forecast), ("without", without), ("measured", measured)):
        (line,) = _by_class(root, "polyline", kind)
        points = _points(line)
        assert len(points) == 2 * 96
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        for index, watts in enumerate(series):
            (_, y1), (_, y2) = points[2 * index : 2 * index + 2]
            assert y1 == y2
            assert zero + y1 * per_pixel == pytest.approx(watts / 1000, abs=0.05)
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_axes_legend_limits_and_numbers_of_the_day() -> None:
    root = _parse(transformer_svg(DAY, title="Transformer & co", note="Contains information from SimBench"))
    labels = _texts(root, "label")
    assert labels == ["Active power, kW (+ withdrawal, − feed-in)", "Time since midnight, 20 May 2016"]
    assert _texts(root, "middle")[1:10] == [f"{hour:02d}:00" for hour in range(0, 25, 3)]
    assert _texts(root, "legend") == ["forecast", "without activation", "measured, with activation", "limits"]
    assert _texts(root, "mark") == ["feed-in limit 160 kW", "withdrawal limit 160 kW"]
    assert _texts(root, "title") == ["Transformer & co"]
    assert _texts(root, "note") == ["Contains information from SimBench"]
    assert _texts(root, "sub") == [
        "ISPs beyond a limit: 96 without activation, 0 measured; lowest load −200 and −150 kW"
    ]
    zero, per_pixel = _scale(root)
    drawn = [
        zero + float(e.get("y1") or 0) * per_pixel for e in _by_class(root, "line", "limit") if e.get("x1") == "76"
    ]
    assert [round(value) for value in drawn if abs(value) < 200] == [-160, 160]


@pytest.mark.parametrize("isps", [92, 96, 100])
def test_days_of_clock_changes_are_as_wide_as_they_are_long(isps: int) -> None:
    flat = [1_000] * isps
    root = _parse(transformer_svg(TransformerDay("d", 900, flat, flat, flat, 5_000, -5_000), title="t"))
    (line,) = _by_class(root, "polyline", "measured")
    assert len(_points(line)) == 2 * isps
    assert _points(line)[-1][0] == WIDTH - 24


def test_series_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[95, 96\] values"):
        TransformerDay("d", 900, [0] * 96, [0] * 95, [0] * 96, 1, -1)
    with pytest.raises(ValueError, match="same number"):
        TransformerDay("d", 900, [], [], [], 1, -1)


def test_merit_order_blocks() -> None:
    root = _parse(merit_order_svg(OFFERS, 15_000, title="Merit order"))
    blocks = _by_class(root, "rect", "offer")
    assert [b.find(f"{SVG}title").text for b in blocks] == [  # type: ignore[union-attr]  # each has one
        "A, battery 1: 10 kW at 60.00 €/MWh, 10 kW ordered",
        "B, roof <2>: 20 kW at 90.00 €/MWh, 5 kW ordered",
        "A, battery 2: 15 kW at 120.00 €/MWh, 0 kW ordered",
    ]
    starts = [float(b.get("x") or 0) for b in blocks]
    widths = [float(b.get("width") or 0) for b in blocks]
    heights = [float(b.get("height") or 0) for b in blocks]
    assert [s + w for s, w in zip(starts, widths, strict=True)][:2] == pytest.approx(starts[1:], abs=0.05)
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.001)
    assert heights[2] / heights[0] == pytest.approx(2, rel=0.001)
    ordered = [float(b.get("width") or 0) for b in _by_class(root, "rect", "ordered")]
    assert ordered == pytest.approx([widths[0], widths[1] / 4], abs=0.05)
    need = next(e for e in _by_class(root, "line", "limit") if e.get("x1") == e.get("x2"))
    assert float(need.get("x1") or 0) == pytest.approx(starts[1] + widths[1] / 4, abs=0.05)
    assert _texts(root, "label") == ["Price, €/MWh", "Cumulated power, kW"]
    assert _texts(root, "mark") == ["need 15 kW"]
    assert _texts(root, "sub") == ["15 kW ordered of 15 kW needed; dearest ordered offer 90.00 €/MWh"]
    assert blocks[0].get("fill") == blocks[2].get("fill") != blocks[1].get("fill")


OFFER = st.builds(
    Offer,
    st.sampled_from(["A", "B", "C"]),
    st.text("xyz<&\"'", max_size=3),
    st.integers(1, 10**6),
    st.integers(-(10**6), 10**6),
    st.just(0),
)


@given(st.lists(OFFER, min_size=1, max_size=20), st.integers(0, 10**7), st.randoms())
def test_any_offers_make_a_picture_that_does_not_depend_on_their_order(
    offers: list[Offer], need: int, random: object
) -> None:
    text = merit_order_svg(offers, need, title="<t>", note="&")
    shuffled = list(offers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types it as object
    assert sorted(in_merit_order(shuffled), key=repr) == sorted(offers, key=repr)
    assert merit_order_svg(shuffled, need, title="<t>", note="&") == text
    root = _parse(text)
    blocks = _by_class(root, "rect", "offer")
    assert len(blocks) == len(offers)
    for block in blocks:
        x, width, y, height = (float(block.get(name) or 0) for name in ("x", "width", "y", "height"))
        assert 0 <= x <= x + width <= WIDTH
        assert 0 <= y <= y + height <= HEIGHT


def test_no_offers_no_picture() -> None:
    with pytest.raises(ValueError, match="at least one offer"):
        merit_order_svg([], 1, title="t")


@given(st.floats(-1e6, 1e6), st.floats(0.001, 1e6), st.integers(2, 12))
def test_ticks_are_round_and_within(low: float, span: float, about: int) -> None:
    values = ticks(low, low + span, about)
    assert all(low - span * 1e-6 <= value <= low + span * (1 + 1e-6) for value in values)
    assert len(values) <= about + 1


def test_numbers_as_people_write_them() -> None:
    assert [number(v) for v in (0, -0.04, 1.0, -1.25, 67.5, 1000)] == ["0", "0", "1", "−1.2", "67.5", "1000"]


@given(st.integers(1, 10**7), st.integers(1, 10**7))
def test_no_two_marks_of_an_axis_read_the_same(power: int, price: int) -> None:
    root = _parse(merit_order_svg([Offer("A", "x", power, price)], power, title="t"))
    for marks in (_texts(root, "end"), _texts(root, "middle")):
        numbers = [mark for mark in marks if mark[-1].isdigit()]
        assert len(set(numbers)) == len(numbers) > 2


def test_an_empty_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="low end"):
        Canvas("t", "", Range(0, 0), Range(0, 1))
