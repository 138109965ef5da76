"""The two pictures of a congestion day, as SVG text: the merit order of the offers, and the transformer's load before
and after. Pure functions of plain data; `flexrelay.demo.terminal` draws the same data as text.

Shown in kW and €/MWh; power is positive for withdrawal from the grid. 1 €/MWh is 1000 n€/Wh.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flexrelay.demo.svg import Canvas, Range, number, ticks

SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#999933")
"""Okabe and Ito's colours, apart for colour-blind eyes; one a provider."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One offer of the merit order; `ordered_w` of its `power_w` were taken."""

    provider: str
    label: str
    power_w: int
    price_nano_eur_per_wh: int
    ordered_w: int = 0


@dataclass(frozen=True, slots=True)
class TransformerDay:
    """One local day at the congestion point, watts per ISP from midnight: as forecast, as it would have been without
    the orders, and as measured. Limits are signed: `feed_in_limit_w` is negative."""

    date: str
    isp_seconds: int
    forecast_w: Sequence[int]
    without_w: Sequence[int]
    measured_w: Sequence[int]
    withdrawal_limit_w: int
    feed_in_limit_w: int

    def __post_init__(self) -> None:
        lengths = {len(self.forecast_w), len(self.without_w), len(self.measured_w)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(f"forecast, without and measured have {sorted(lengths)} values; they need the same number")


def in_merit_order(offers: Sequence[Offer]) -> list[Offer]:
    """Cheapest first; equal prices by the other fields, so that the picture is always the same."""
    return sorted(offers, key=lambda o: (o.price_nano_eur_per_wh, o.provider, o.label, o.power_w, o.ordered_w))


def merit_order_svg(offers: Sequence[Offer], need_w: int, *, title: str, note: str = "") -> str:
    """Price over cumulated power, a block an offer, the ordered part solid, and the need as a line.

    `note` stands at the bottom (the source of the data). Raises ValueError without any offer.
    """
    ordered = in_merit_order(offers)
    if not ordered:
        raise ValueError("a merit order needs at least one offer")
    total = sum(offer.power_w for offer in ordered)
    prices = [offer.price_nano_eur_per_wh / 1000 for offer in ordered]
    x = Range(0, max(total, need_w) / 1000 * 1.04)
    y = Range(min(0.0, *prices) * 1.1, max(0.0, *prices) * 1.15 or 1)
    canvas = Canvas(title, _order_summary(ordered, need_w), x, y, note)
    canvas.y_axis(ticks(y.low, y.high, 6), "Price, €/MWh")
    canvas.x_axis([(value, number(value, 4)) for value in ticks(0, x.high, 8)], "Cumulated power, kW")
    providers = sorted({offer.provider for offer in ordered})
    colours = {provider: SERIES[index % len(SERIES)] for index, provider in enumerate(providers)}
    start = 0.0
    for offer, price in zip(ordered, prices, strict=True):
        width, taken = offer.power_w / 1000, offer.ordered_w / 1000
        tip = f"{offer.provider}, {offer.label}: {number(width)} kW at {price:.2f} €/MWh, {number(taken)} kW ordered"
        canvas.bar((start, start + width), price, colours[offer.provider], "offer", tip)
        if taken:
            canvas.bar((start, start + taken), price, colours[offer.provider], "ordered", tip)
        start += width
    canvas.vertical(need_w / 1000, "limit", f"need {number(need_w / 1000)} kW")
    canvas.baseline()
    entries = [("swatch", colours[provider], provider) for provider in providers]
    canvas.legend([*entries, ("swatch", "", "solid: ordered, pale: not"), ("limit", "", "need")])
    return canvas.text()


def transformer_svg(day: TransformerDay, *, title: str, note: str = "") -> str:
    """The day's load as steps over local time, with both limits, and what the orders took off shaded."""
    count = len(day.measured_w)
    forecast, without, measured = ([w / 1000 for w in s] for s in (day.forecast_w, day.without_w, day.measured_w))
    limits = (day.feed_in_limit_w / 1000, day.withdrawal_limit_w / 1000)
    everything = [*forecast, *without, *measured, *limits, 0.0]
    margin = 0.06 * (max(everything) - min(everything))
    hours = count * day.isp_seconds / 3600
    x, y = Range(0, hours), Range(min(everything) - margin, max(everything) + margin)
    canvas = Canvas(title, _day_summary(day), x, y, note)
    canvas.y_axis(ticks(y.low, y.high, 7), "Active power, kW (+ withdrawal, − feed-in)")
    step = 3 if hours > 12 else 1
    marks = [(float(hour), f"{hour:02d}:00") for hour in range(0, int(hours) + 1, step)]
    canvas.x_axis(marks, f"Time since midnight, {day.date}")
    edges = [index * day.isp_seconds / 3600 for index in range(count + 1)]
    canvas.band(edges, without, measured, "activation")
    canvas.band(edges, without, [_clamp(value, *limits) for value in without], "excess")
    for limit in limits:
        canvas.horizontal(limit, "limit", f"{_name(limit)} {number(abs(limit))} kW")
    canvas.baseline()
    canvas.steps(edges, forecast, "forecast")
    canvas.steps(edges, without, "without")
    canvas.steps(edges, measured, "measured")
    canvas.legend(
        [
            ("forecast", "", "forecast"),
            ("without", "", "without activation"),
            ("measured", "", "measured, with activation"),
            ("limit", "", "limits"),
        ]
    )
    return canvas.text()


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _name(limit: float) -> str:
    return "feed-in limit" if limit < 0 else "withdrawal limit"


def _order_summary(offers: Sequence[Offer], need_w: int) -> str:
    taken = sum(offer.ordered_w for offer in offers)
    text = f"{number(taken / 1000)} kW ordered of {number(need_w / 1000)} kW needed"
    if taken:
        dearest = max(o.price_nano_eur_per_wh for o in offers if o.ordered_w)
        text += f"; dearest ordered offer {dearest / 1000:.2f} €/MWh"
    return text


def _day_summary(day: TransformerDay) -> str:
    def beyond(series: Sequence[int]) -> int:
        return sum(not day.feed_in_limit_w <= w <= day.withdrawal_limit_w for w in series)

    low = (number(min(s) / 1000) for s in (day.without_w, day.measured_w))
    return "ISPs beyond a limit: {} without activation, {} measured; lowest load {} and {} kW".format(
        beyond(day.without_w), beyond(day.measured_w), *low
    )
