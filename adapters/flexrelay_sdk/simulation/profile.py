"""Profiles that simulated devices follow: named series of whole numbers on one time step, from CSV or JSON.

CSV: a header `at_s,<series>,…`, then one row a step with the seconds from the start (equal steps) and whole numbers.
JSON: `{"step_s": 900, "series": {"home": [420, …]}, "devices": [{"kind": "meter", "series": "home"}, …]}`.

A series ending with its device's kind is enough for CSV: a column `home_meter` makes a meter, `roof_pv` an inverter
(positive = what it could produce), `cabin_heat_pump` a heat pump (outdoor temperature in milli-degrees Celsius),
`garage_ev_charger` a charger (1 while a car is there); batteries need no series.
"""

import csv
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from flexrelay_sdk.config import Section

KINDS = ("meter", "pv", "battery", "ev_charger", "heat_pump")
Kind = Literal["meter", "pv", "battery", "ev_charger", "heat_pump"]


class DeviceSpec(Section):
    """One kind of device; further fields are its model's own (`rated_w`, `capacity_wh`, …), all whole numbers."""

    kind: Kind
    series: str = ""
    parameters: dict[str, int] = Field(default_factory=dict)


class Profile(Section):
    """Series and the devices that follow them; a series starts anew when it is over."""

    step_s: Annotated[int, Field(ge=1, le=86_400)]
    series: dict[str, Annotated[tuple[int, ...], Field(min_length=1, max_length=1_000_000)]]
    devices: Annotated[tuple[DeviceSpec, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _named(self) -> Self:
        for number, device in enumerate(self.devices):
            if device.series not in self.series and (device.series or device.kind != "battery"):
                known = ", ".join(sorted(self.series)) or "none"
                raise ValueError(f"devices.{number}.series: there is no series {device.series!r}; there are {known}")
        return self

    @classmethod
    def read(cls, file: Path) -> Self:
        """Raises ValueError naming the file and the place, OSError."""
        text = file.read_text()
        try:
            document = json.loads(text) if file.suffix == ".json" else _from_csv(text)
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ValueError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None


def _from_csv(text: str) -> dict[str, Any]:
    rows = list(csv.reader(io.StringIO(text)))
    if len(rows) < 3 or not rows[0] or rows[0][0].strip() != "at_s":
        raise ValueError("a CSV profile has a header that begins with at_s, and at least two rows")
    names = [name.strip() for name in rows[0][1:]]
    try:
        table = [[int(cell) for cell in row] for row in rows[1:] if row]
    except ValueError as error:
        raise ValueError(f"only whole numbers below the header: {error}") from None
    if any(len(row) != len(names) + 1 for row in table):
        raise ValueError(f"every row has {len(names) + 1} cells")
    steps = {after[0] - before[0] for before, after in pairwise(table)}
    if len(steps) != 1:
        raise ValueError("at_s grows by equal steps")
    devices = [{"kind": kind, "series": name} for name in names if (kind := _kind_of(name))]
    if not devices:
        raise ValueError(f"no column's name ends with one of {', '.join('_' + kind for kind in KINDS)}")
    series = {name: [row[index + 1] for row in table] for index, name in enumerate(names)}
    return {"step_s": steps.pop(), "series": series, "devices": devices}


def _kind_of(name: str) -> str:
    return next((kind for kind in KINDS if name == kind or name.endswith("_" + kind)), "")
