"""The pictures of `flexrelay.demo.plots` as text for a terminal: block characters, no colours, no control codes."""

from collections.abc import Sequence

from flexrelay.demo.plots import Offer, TransformerDay, in_merit_order
from flexrelay.demo.svg import number, ticks

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_FULL, _AVOIDED, _BOTH = "█", "░", "▓"
_AXIS = 8
"""Columns of the numbers at the left."""


def merit_order_text(offers: Sequence[Offer], need_w: int, width: int = 78) -> str:
    """One line an offer, cheapest first: cumulated power, who, price as a bar, and what was ordered of it.

    A rule shows where the offers reach the need. Raises ValueError without any offer or below 60 columns.
    """
    ordered = in_merit_order(offers)
    if not ordered:
        raise ValueError("a merit order needs at least one offer")
    if width < 60:
        raise ValueError(f"{width} columns are too few; a merit order needs 60")
    names = [f"{offer.provider} · {offer.label}" for offer in ordered]
    longest = min(max(map(len, names)), 26, width - 46)
    room = width - longest - 39
    dearest = max(max(offer.price_nano_eur_per_wh for offer in ordered), 1)
    lines = [f"{'Σ kW':>7}  {'offer':<{longest}}  {'€/MWh':>8}  {'':<{room}}  ordered"]
    total, met = 0, need_w <= 0
    for offer, name in zip(ordered, names, strict=True):
        total += offer.power_w
        bar = _bar(offer.price_nano_eur_per_wh / dearest * room, room)
        short = name if len(name) <= longest else name[: longest - 1] + "…"
        price = f"{offer.price_nano_eur_per_wh / 1000:.2f}".replace("-", "−")
        lines.append(
            f"{number(total / 1000):>7}  {short:<{longest}}  {price:>8}  {bar:<{room}}  {_taken(offer)}".rstrip()
        )
        if not met and total >= need_w:
            met = True
            lines.append(_rule(f" need {number(need_w / 1000)} kW ", width))
    if not met:
        lines.append(_rule(f" need {number(need_w / 1000)} kW is not reached ", width))
    return "\n".join(lines)


def transformer_text(day: TransformerDay, width: int = 78, height: int = 18) -> str:
    """The day's load around the zero line: what was measured, what the orders avoided, forecast and limits.

    A column holds one or more ISPs and shows the one with the largest load without activation; a line is two values
    high. Raises ValueError below 48 columns or 8 lines.
    """
    if width < 48 or height < 8:
        raise ValueError(f"{width}×{height} characters are too few; a day needs 48×8")
    chosen = _columns(day, width - _AXIS - 1)
    series = [[values[i] for i in chosen] for values in (day.measured_w, day.without_w, day.forecast_w)]
    low = min(*map(min, series), day.feed_in_limit_w, 0)
    high = max(*map(max, series), day.withdrawal_limit_w, 0)
    levels = _Levels(low, high, height)
    grid = [_row(levels, row, *series) for row in range(levels.rows)]
    for limit in (day.feed_in_limit_w, day.withdrawal_limit_w):
        row = levels.row(limit)
        grid[row] = ["┄" if cell in " •" else cell for cell in grid[row]]
    labels = {levels.row(round(tick)): number(tick / 1000, 4) for tick in ticks(low, high, max(height // 3, 2))}
    labels |= {levels.row(w): number(w / 1000) for w in (day.feed_in_limit_w, day.withdrawal_limit_w, 0)}
    marks = {levels.row(day.feed_in_limit_w): "┤", levels.row(day.withdrawal_limit_w): "┤", levels.row(0): "┼"}
    lines = [f"{'kW':>{_AXIS - 1}}  {day.date}, + withdrawal, − feed-in"]
    for row, cells in enumerate(grid):
        lines.append(f"{labels.get(row, ''):>{_AXIS - 1}} {marks.get(row, '│')}{''.join(cells)}".rstrip())
    lines.append(" " * _AXIS + "└" + _clock(day, chosen))
    limits = f"{number(day.feed_in_limit_w / 1000)} and {number(day.withdrawal_limit_w / 1000)} kW"
    lines.append(f"{' ' * _AXIS} {_FULL} measured  {_AVOIDED} avoided by activation  • forecast  ┄ limits {limits}")
    return "\n".join(lines)


class _Levels:
    """Rows of two half-lines each; the zero line is a boundary between half-lines."""

    def __init__(self, low: int, high: int, rows: int) -> None:
        self._step = (high - low) / (2 * rows - 2) or 1.0
        self._above = -(-max(high, 0) // self._step)  # half-lines above zero
        self.rows = int(-(-(self._above - low / self._step + 1) // 2))

    def row(self, value: int) -> int:
        """The row that shows a value."""
        return min(max(int((self._above - value / self._step) // 2), 0), self.rows - 1)

    def middle(self, row: int, half: int) -> float:
        """The value in the middle of a half-line."""
        return (self._above - 2 * row - half - 0.5) * self._step


def _row(
    levels: _Levels, row: int, measured: Sequence[int], without: Sequence[int], forecast: Sequence[int]
) -> list[str]:
    cells = []
    for real, other, expected in zip(measured, without, forecast, strict=True):
        halves = [_kind(levels.middle(row, half), real, other) for half in (0, 1)]
        cell = _cell(*halves)
        cells.append("•" if cell == " " and levels.row(expected) == row else cell)
    return cells


def _kind(value: float, measured: int, without: int) -> str:
    if 0 < value <= measured or measured <= value < 0:
        return _FULL
    if 0 < value <= without or without <= value < 0:
        return _AVOIDED
    return " "


def _cell(top: str, bottom: str) -> str:
    if top == bottom:
        return top
    if " " not in (top, bottom):
        return _BOTH
    if _FULL in (top, bottom):
        return "▀" if top == _FULL else "▄"
    return _AVOIDED


def _columns(day: TransformerDay, room: int) -> list[int]:
    """The ISP that each column shows: of the ISPs of one column the most loaded."""
    count = len(day.measured_w)
    each = -(-count // room)
    groups = [range(start, min(start + each, count)) for start in range(0, count, each)]
    return [max(group, key=lambda index: abs(day.without_w[index])) for group in groups]


def _clock(day: TransformerDay, chosen: Sequence[int]) -> str:
    each = -(-len(day.measured_w) // len(chosen))
    hours_per_column = each * day.isp_seconds / 3600
    step = 3 if len(day.measured_w) * day.isp_seconds > 12 * 3600 else 1
    line = ["─"] * len(chosen)
    for hour in range(0, int(len(chosen) * hours_per_column) + 1, step):
        column = round(hour / hours_per_column)
        text = f"{hour:02d}h"
        if column + len(text) <= len(line):
            line[column : column + len(text)] = text
    return "".join(line)


def _taken(offer: Offer) -> str:
    if offer.ordered_w >= offer.power_w > 0:
        return f"{number(offer.power_w / 1000)} kW"
    if offer.ordered_w > 0:
        return f"{number(offer.ordered_w / 1000)} of {number(offer.power_w / 1000)}"
    return "–"


def _bar(length: float, room: int) -> str:
    eighths = max(min(round(length * 8), room * 8), 0)
    return _EIGHTHS[8] * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _rule(text: str, width: int) -> str:
    return "──" + text + "─" * (width - 2 - len(text))
