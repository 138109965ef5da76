"""The demo's input: an extract of the SimBench grid `1-LV-rural1--2-sw` (ODbL, see data/NOTICE.md).

Thirteen connections with base load, heat pumps, EV charging and PV; five battery connections. SimBench's storage
profiles are PV and battery together; here only the batteries (rated power, capacity) are used and flexrelay's market
commands them, so the PV behind SimBench's storages is left out (data/NOTICE.md).
"""

import json
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

EXTRACT = "rural1_extract.json"
ISP_SECONDS = 900
ISPS_A_DAY = 96
DATES = tuple(f"2016-05-{day:02d}" for day in range(12, 21))
HOLIDAYS = ("2016-05-16",)
TIME_ZONE = "Europe/Berlin"
LIMIT_PERMILLE = 900
"""The DSO keeps the transformer below this share of its rating."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One metered thing: its average active power per ISP in W (positive = withdrawal) over all DATES."""

    name: str
    bus: int
    series_w: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Battery:
    name: str
    bus: int
    rated_w: int
    capacity_wh: int


@dataclass(frozen=True)
class Grid:
    """`connections`: net power of every bus with customers; `inverters`: the PV behind them (telemetry only)."""

    attribution: str
    rated_va: int
    no_load_loss_w: int
    copper_loss_w: int
    connections: tuple[Asset, ...]
    inverters: tuple[Asset, ...]
    batteries: tuple[Battery, ...]

    @property
    def limit_w(self) -> int:
        """The greatest feed-in or withdrawal that the DSO plans with."""
        return self.rated_va * LIMIT_PERMILLE // 1000

    @cached_property
    def net_w(self) -> tuple[int, ...]:
        """Σ of all connections per ISP over all DATES, without batteries and losses."""
        return tuple(map(sum, zip(*(asset.series_w for asset in self.connections), strict=True)))

    def losses_w(self, through_w: int) -> int:
        """Transformer losses at a net power: no-load plus copper losses with the square of the load."""
        return self.no_load_loss_w + self.copper_loss_w * through_w * through_w // (self.rated_va * self.rated_va)


def copy_extract(folder: Path) -> Path:
    """Copy the extract that comes with the package, and its notice, into a folder; the extract's path there."""
    folder.mkdir(parents=True)
    for name in (EXTRACT, "NOTICE.md"):
        folder.joinpath(name).write_bytes(resources.files("flexrelay.demo").joinpath("data", name).read_bytes())
    return folder / EXTRACT


def load_grid(path: Path | None = None) -> Grid:
    """Read an extract; without a path the one that comes with the package."""
    source = resources.files("flexrelay.demo").joinpath("data", EXTRACT) if path is None else path
    data: dict[str, Any] = json.loads(source.read_text())
    count = len(DATES) * ISPS_A_DAY
    buses = sorted({asset["bus"] for asset in data["loads"]})
    nets: dict[int, list[int]] = {bus: [0] * count for bus in buses}
    for asset in (*data["loads"], *data["sgens"]):
        net = nets[asset["bus"]]
        for index in range(count):
            net[index] += asset["active_w"][index]
    transformer = data["transformer"]
    return Grid(
        attribution=data["metadata"]["attribution"],
        rated_va=transformer["rated_va"],
        no_load_loss_w=transformer["no_load_loss_w"],
        copper_loss_w=transformer["copper_loss_w"],
        connections=tuple(Asset(f"bus{bus:02d}", bus, tuple(nets[bus])) for bus in buses),
        inverters=tuple(
            Asset(f"pv{asset['bus']:02d}", asset["bus"], tuple(asset["active_w"][:count])) for asset in data["sgens"]
        ),
        batteries=tuple(
            Battery(f"s{asset['name'].split()[-1]}", asset["bus"], asset["rated_w"], asset["capacity_wh"])
            for asset in data["storages"]
        ),
    )
