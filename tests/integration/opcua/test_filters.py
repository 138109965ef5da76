"""What a server is asked to report: every new source time, other values only, or values outside of a deadband."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
from support.opcua_server import node_server, now_ms, section

from flexrelay_adapters.opcua import OpcuaAdapter, OpcuaConfig
from flexrelay_sdk.testkit import RecordingSink, running, until

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 90.0
TOLD: Final = [100, 100, 104, 104, 111, 112, 120, 120, 500]
"""The last one is outside of everything, so that the end is seen."""
WANTED: Final[dict[str, tuple[dict[str, Any], list[int]]]] = {
    "all": ({}, TOLD),
    "wide": ({"deadband": 9.0}, [100, 111, 500]),  # from the value that was reported last
    "narrow": ({"deadband": 1.5}, [100, 104, 111, 120, 500]),
    "percent": ({"deadband_percent": 1.0}, [100, 111, 500]),  # of a range of 1,000: more than 10
    "refused": ({"deadband_percent": 1.0}, []),  # there is no range
}
BY_VALUE: Final = [100, 104, 111, 112, 120, 500]


async def test_filters(tmp_path: Path) -> None:
    devices, ranges = {name: ["power"] for name in WANTED}, {"percent.power": [0, 1000]}
    async with node_server(tmp_path / "server", devices=devices, ranges=ranges, history=False) as server:

        def adapter(state: str, names: list[str], **more: Any) -> OpcuaAdapter:
            values = section(server, tmp_path, **{"state": str(tmp_path / state), **more})
            source = {name: {"node": server.node(f"{name}.power"), "unit": "W", **WANTED[name][0]} for name in names}
            values["devices"] = {name: {"registers": {"power_w": source[name]}} for name in names}
            return OpcuaAdapter(OpcuaConfig.from_section("plant", values))

        by_time, by_value = adapter("one", list(WANTED)), adapter("two", ["all"], report="value")
        sink, other = RecordingSink(), RecordingSink()
        async with (
            running(by_time, sink, connect_s=PATIENCE_S),
            running(by_value, other, connect_s=PATIENCE_S),
        ):
            assert set(by_time.refused) == {("refused", "power_w")}, "the others go on"
            assert "Filter" in by_time.refused["refused", "power_w"]
            start = now_ms() - 10_000
            for number, value in enumerate(TOLD):
                for name in WANTED:
                    await server.set(f"{name}.power", value, time_ms=start + number)
            wanted = sum(500 in values for _, values in WANTED.values())
            await until(
                lambda: sink.values().count(500) == wanted and 500 in other.values(), PATIENCE_S, "the last ones"
            )
        for name, (_, values) in WANTED.items():
            mine = [s for s in sink.stored if s.frame.credential == by_time.config.credential(name)]
            found = [(m.registers["power_w"], m.observed_at - start) for s in mine for m in s.measurements]
            places = list(range(len(TOLD))) if values == TOLD else [TOLD.index(value) for value in values]
            assert found == list(zip(values, places, strict=True)), name
        assert other.values() == BY_VALUE and sink.dead == [] and other.dead == []
