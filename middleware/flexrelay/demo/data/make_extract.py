"""Make ``rural1_extract.json``: nine days of the SimBench grid ``1-LV-rural1--2-sw`` in integer watts.

SimBench is not a dependency of flexrelay (with pandapower it is some 380 MB). Use a throw-away environment::

    python3 -m venv /tmp/simbench-venv
    /tmp/simbench-venv/bin/pip install simbench==1.6.3
    /tmp/simbench-venv/bin/python middleware/flexrelay/demo/data/make_extract.py

The result depends on the SimBench release, so another release is refused. Licence of the data: NOTICE.md.

Two properties of the source decide the shape of the extract:

- Its time stamps are German legal time with summer time: 27 March 2016 has 92 of them, 30 October 100, and
  the centre of the PV profiles moves by about an hour at both. A stamp is taken as the start of its interval.
- Its "storages" are a PV plant and a battery together, dispatched for the owner's self-consumption
  (https://github.com/e2nIEE/simbench/issues/2); ``active_w`` is what the pair exchanges with the grid.
  ``pv_w`` is the PV part, rebuilt from the PV profile that the storage profile is named after and from the
  storage's rated power; ``active_w - pv_w`` is then the battery. An inference, borne out by the numbers: but
  for self-discharge the two agree when the battery is full, and it swings by its capacity on a long day.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

GRID_CODE = "1-LV-rural1--2-sw"
SIMBENCH_VERSION = "1.6.3"
ZONE = ZoneInfo("Europe/Berlin")
START = datetime(2016, 5, 12, tzinfo=ZONE)
END = datetime(2016, 5, 21, 2, tzinfo=ZONE)
ISP = timedelta(minutes=15)
TARGET = Path(__file__).with_name("rural1_extract.json")

# What a load is, read from the name of its profile: VDEW classes H0 and L*, heat pumps, home charging.
USES = {
    "H0": "household",
    "L1": "agriculture",
    "L2": "agriculture",
    "Air": "heat_pump",
    "Soil": "heat_pump",
    "HLS": "ev_charging",
}

Row = dict[str, Any]
Values = Mapping[tuple[str, str], Any]


def _micro(value: float) -> int:
    """MW to W, Mvar to var, MVA to VA, MWh to Wh."""
    return round(float(value) * 1_000_000)


def _number(name: str) -> int:
    """The number a SimBench name ends with: ``LV1.101 Bus 10`` is 10."""
    found = re.search(r"(\d+)$", name)
    if found is None:
        raise ValueError(f"no number at the end of {name!r}")
    return int(found.group(1))


def _window(stamps: Sequence[str]) -> slice:
    """The positions of START..END in the year; raises if a stamp between is not the expected one."""
    count = (END - START) // ISP
    expected = [(START + i * ISP).strftime("%d.%m.%Y %H:%M") for i in range(count)]
    first = list(stamps).index(expected[0])
    if list(stamps[first : first + count]) != expected:
        raise ValueError("the source's time stamps are not contiguous local time")
    return slice(first, first + count)


def _watts(column: Any, window: slice, sign: int = 1) -> list[int]:
    return [sign * _micro(value) for value in column.iloc[window]]


def _asset(kind: str, use: str, row: Any, buses: Mapping[int, int]) -> Row:
    return {
        "name": row["name"],
        "kind": kind,
        "use": use,
        "subtype": row["profile"],
        "bus": buses[row["bus"]],
    }


def _loads(net: Any, values: Values, buses: Mapping[int, int], window: slice) -> Iterable[Row]:
    for index, row in net.load.iterrows():
        use = USES[re.split(r"[-_]", row["profile"])[0]]
        active = _watts(values["load", "p_mw"][index], window)
        reactive = _watts(values["load", "q_mvar"][index], window)
        yield _asset("load", use, row, buses) | {
            "rated_w": _micro(row["p_mw"]),
            "active_w": active,
            "reactive_var": reactive,
        }


def _sgens(net: Any, values: Values, buses: Mapping[int, int], window: slice) -> Iterable[Row]:
    for index, row in net.sgen.iterrows():
        active = _watts(values["sgen", "p_mw"][index], window, sign=-1)
        yield _asset("sgen", "pv", row, buses) | {
            "rated_w": _micro(row["p_mw"]),
            "active_w": active,
            "reactive_var": [0] * len(active),
        }


def _storages(net: Any, values: Values, buses: Mapping[int, int], window: slice) -> Iterable[Row]:
    for index, row in net.storage.iterrows():
        pv_profile = row["profile"].split("_")[1]
        pv = net.profiles["renewables"][pv_profile] * row["sn_mva"]
        active = _watts(values["storage", "p_mw"][index], window)
        yield _asset("storage", "pv_battery", row, buses) | {
            "rated_w": _micro(row["sn_mva"]),
            "capacity_wh": _micro(row["max_e_mwh"]),
            "pv_profile": pv_profile,
            "active_w": active,
            "reactive_var": [0] * len(active),
            "pv_w": _watts(pv, window, sign=-1),
        }


def _transformer(net: Any, buses: Mapping[int, int]) -> Row:
    (row,) = (row for _, row in net.trafo.iterrows())
    return {
        "name": row["name"],
        "type": row["std_type"],
        "lv_bus": buses[row["lv_bus"]],
        "rated_va": _micro(row["sn_mva"]),
        "hv_v": round(row["vn_hv_kv"] * 1000),
        "lv_v": round(row["vn_lv_kv"] * 1000),
        "no_load_loss_w": round(row["pfe_kw"] * 1000),
        "copper_loss_w": round(row["vkr_percent"] / 100 * row["sn_mva"] * 1_000_000),
        "short_circuit_voltage_ppm": round(row["vk_percent"] * 10_000),
    }


def _lines(net: Any, buses: Mapping[int, int]) -> Iterable[Row]:
    for _, row in net.line.iterrows():
        yield {
            "name": row["name"],
            "type": row["std_type"],
            "from_bus": buses[row["from_bus"]],
            "to_bus": buses[row["to_bus"]],
            "length_mm": _micro(row["length_km"]),
            "r_uohm": _micro(row["length_km"] * row["r_ohm_per_km"]),
            "x_uohm": _micro(row["length_km"] * row["x_ohm_per_km"]),
            "max_a": round(row["max_i_ka"] * 1000),
        }


def _metadata() -> Row:
    return {
        "source": "SimBench, https://simbench.de, as packaged in https://pypi.org/project/simbench/",
        "simbench_version": SIMBENCH_VERSION,
        "grid_code": GRID_CODE,
        "licence": "ODbL-1.0",
        "licence_url": "https://opendatacommons.org/licenses/odbl/1-0/",
        "attribution": "Contains information from SimBench, which is made available here under the "
        "Open Database License (ODbL).",
        "made_by": "middleware/flexrelay/demo/data/make_extract.py",
        "sign": "positive = withdrawal from the grid: loads >= 0, PV <= 0, a charging battery > 0; "
        "reactive power: positive = inductive withdrawal",
        "values": "average over the ISP in W and var; storages: active_w = PV + battery, pv_w = its PV part",
        "time": "the source's stamps are German legal time with summer time; each is the start of its ISP",
        "time_zone": ZONE.key,
        "start": START.isoformat(),
        "start_utc": START.astimezone(UTC).isoformat(),
        "end": END.isoformat(),
        "isp_seconds": int(ISP.total_seconds()),
        "isp_count": (END - START) // ISP,
        "public_holidays": ["2016-05-16"],
    }


def extract() -> dict[str, Row | list[Row]]:
    """The extract, in the order in which it is written; needs simbench and raises on another release."""
    if version("simbench") != SIMBENCH_VERSION:
        raise RuntimeError(f"made with simbench {SIMBENCH_VERSION}, found {version('simbench')}")
    simbench = importlib.import_module("simbench")
    net = simbench.get_simbench_net(GRID_CODE)
    buses = {index: _number(name) for index, name in net.bus["name"].items()}
    window = _window(net.profiles["load"]["time"].tolist())
    values = simbench.get_absolute_values(net, profiles_instead_of_study_cases=True)

    def ordered(rows: Iterable[Row]) -> list[Row]:
        return sorted(rows, key=lambda row: _number(row["name"]))

    return {
        "metadata": _metadata(),
        "transformer": _transformer(net, buses),
        "lines": ordered(_lines(net, buses)),
        "loads": ordered(_loads(net, values, buses, window)),
        "sgens": ordered(_sgens(net, values, buses, window)),
        "storages": ordered(_storages(net, values, buses, window)),
    }


def render(content: Mapping[str, Row | list[Row]]) -> str:
    """Compact JSON with one row per line, so that a change of one asset is a change of one line."""

    def compact(value: object) -> str:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

    def block(value: Row | list[Row]) -> str:
        return "[\n" + ",\n".join(map(compact, value)) + "\n]" if isinstance(value, list) else compact(value)

    parts = [f'"{key}":{block(value)}' for key, value in content.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    TARGET.write_text(render(extract()), encoding="utf-8", newline="\n")
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes")
