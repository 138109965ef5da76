"""A small chart canvas that writes SVG: scales, axes, steps, bars and a legend. Nothing is measured in a font: texts
are short and have room. Follows the reader's light or dark scheme where the viewer knows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 960, 540
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 104, 84

_STYLE = """
text{font-family:system-ui,-apple-system,"Segoe UI","Helvetica Neue",Arial,"DejaVu Sans",sans-serif;font-size:13px;
fill:#3d4451}
.paper{fill:#fff}.title{font-size:20px;font-weight:600;fill:#14181f}.sub{font-size:14px}.note{font-size:11px}
.mark{font-size:12px;fill:#a3232a;font-weight:600}
.end{text-anchor:end}.middle{text-anchor:middle}
.grid{stroke:#e4e7ec;stroke-width:1}.axis{stroke:#8a919e;stroke-width:1}.zero{stroke:#3d4451;stroke-width:1}
polyline{fill:none;stroke-linejoin:round}
.forecast{stroke:#7c8492;stroke-width:1.5;stroke-dasharray:2 3}
.without{stroke:#d55e00;stroke-width:1.75}.measured{stroke:#0072b2;stroke-width:2.5}
.limit{stroke:#a3232a;stroke-width:1.5;stroke-dasharray:8 4}
.activation{fill:#0072b2;fill-opacity:.12}.excess{fill:#d55e00;fill-opacity:.22}
.offer{fill-opacity:.28;stroke:#fff;stroke-width:1}.ordered{stroke:#fff;stroke-width:1}
@media (prefers-color-scheme:dark){text{fill:#b8c0cc}.paper{fill:#14181f}.title{fill:#f2f4f7}.mark{fill:#ff8a80}
.grid{stroke:#2a303b}.axis{stroke:#6b7280}.zero{stroke:#b8c0cc}.limit{stroke:#ff8a80}.measured{stroke:#56b4e9}
.forecast{stroke:#9aa2b0}.offer,.ordered{stroke:#14181f}}
"""


@dataclass(frozen=True, slots=True)
class Range:
    """What an axis shows, in the chart's units."""

    low: float
    high: float


def number(value: float, digits: int = 1) -> str:
    """At most `digits` decimals (one or more), none that are zero, a true minus sign, and none of -0."""
    text = f"{value:.{digits}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", "−")


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values from low to high, about so many: steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    return [index * step for index in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


class Canvas:
    """One chart under construction. Methods add to it in the order of drawing; `text` is the document."""

    def __init__(self, title: str, subtitle: str, x: Range, y: Range, note: str = "") -> None:
        if not (x.low < x.high and y.low < y.high):
            raise ValueError("an axis needs a low end below its high end")
        self._x, self._y = x, y
        self._title = title
        self._summary = subtitle
        self._parts: list[str] = []
        self._write(24, 36, title, "title")
        self._write(24, 58, subtitle, "sub")
        if note:
            self._write(24, HEIGHT - 14, note, "note")

    def text(self) -> str:
        """The SVG document."""
        body = "\n".join(self._parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
            f' role="img" aria-labelledby="title desc">\n<title id="title">{escape(self._title)}</title>\n'
            f'<desc id="desc">{escape(self._summary)}</desc>\n<style>{_STYLE}</style>\n'
            f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>\n{body}\n</svg>\n'
        )

    def px(self, value: float) -> float:
        """Horizontal position of a value."""
        return round(LEFT + (value - self._x.low) / (self._x.high - self._x.low) * (WIDTH - LEFT - RIGHT), 2)

    def py(self, value: float) -> float:
        """Vertical position of a value."""
        return round(
            HEIGHT - BOTTOM - (value - self._y.low) / (self._y.high - self._y.low) * (HEIGHT - TOP - BOTTOM), 2
        )

    def y_axis(self, values: Sequence[float], label: str) -> None:
        """Grid lines with their numbers, and the label, turned."""
        for value in values:
            y = self.py(value)
            self._line(LEFT, y, WIDTH - RIGHT, y, "grid")
            self._write(LEFT - 10, y + 4.5, number(value, 4), "end")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self._parts.append(
            f'<text class="middle label" transform="translate(22 {middle}) rotate(-90)">{escape(label)}</text>'
        )

    def x_axis(self, marks: Sequence[tuple[float, str]], label: str) -> None:
        """The axis line, ticks with their texts, and the label below."""
        y = HEIGHT - BOTTOM
        self._line(LEFT, y, WIDTH - RIGHT, y, "axis")
        for value, text in marks:
            x = self.px(value)
            self._line(x, y, x, y + 5, "axis")
            self._write(x, y + 20, text, "middle")
        self._write((LEFT + WIDTH - RIGHT) / 2, y + 42, label, "middle label")

    def baseline(self) -> None:
        """The zero line, when zero is within the axis."""
        if self._y.low <= 0 <= self._y.high:
            self._line(LEFT, self.py(0), WIDTH - RIGHT, self.py(0), "zero")

    def horizontal(self, value: float, kind: str, label: str) -> None:
        """A line across with its label at the left, on the side away from zero."""
        y = self.py(value)
        self._line(LEFT, y, WIDTH - RIGHT, y, kind)
        self._write(LEFT + 8, y - 6 if value >= 0 else y + 16, label, "mark")

    def vertical(self, value: float, kind: str, label: str) -> None:
        """A line from top to bottom with its label at the top, on the side that has room."""
        x = self.px(value)
        self._line(x, TOP, x, HEIGHT - BOTTOM, kind)
        late = x > WIDTH - RIGHT - 120
        self._write(x - 6 if late else x + 6, TOP + 10, label, "mark end" if late else "mark")

    def steps(self, edges: Sequence[float], values: Sequence[float], kind: str) -> None:
        """A step line: each value holds from its edge to the next; two points a value."""
        self._parts.append(f'<polyline class="{kind}" points="{" ".join(self._corners(edges, values))}"/>')

    def band(self, edges: Sequence[float], upper: Sequence[float], lower: Sequence[float], kind: str) -> None:
        """The area between two step lines."""
        points = [*self._corners(edges, upper), *reversed(self._corners(edges, lower))]
        self._parts.append(f'<polygon class="{kind}" points="{" ".join(points)}"/>')

    def bar(self, span: tuple[float, float], value: float, colour: str, kind: str, tip: str) -> None:
        """A block from zero to a value; `tip` is shown by viewers when pointed at."""
        left, right = self.px(span[0]), self.px(span[1])
        top, bottom = sorted((self.py(value), self.py(0)))
        self._parts.append(
            f'<rect class="{kind}" x="{left}" y="{top}" width="{right - left:.2f}" height="{bottom - top:.2f}" '
            f'fill="{colour}"><title>{escape(tip)}</title></rect>'
        )

    def legend(self, entries: Sequence[tuple[str, str, str]]) -> None:
        """(kind, colour, text) in a row below the subtitle: lines by their class, "swatch" as a square."""
        x = float(LEFT)
        for kind, colour, text in entries:
            if kind != "swatch":
                self._line(x, 82, x + 26, 82, kind)
                x += 34
            elif colour:
                self._parts.append(f'<rect x="{x}" y="75" width="14" height="14" rx="2" fill="{colour}"/>')
                x += 22
            self._write(x, 86.5, text, "legend")
            x += 7.2 * len(text) + 26

    def _corners(self, edges: Sequence[float], values: Sequence[float]) -> list[str]:
        result = []
        for index, value in enumerate(values):
            y = self.py(value)
            result += [f"{self.px(edges[index])},{y}", f"{self.px(edges[index + 1])},{y}"]
        return result

    def _line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self._parts.append(f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')

    def _write(self, x: float, y: float, text: str, kind: str) -> None:
        self._parts.append(f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>')
