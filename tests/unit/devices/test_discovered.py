"""Looking around: an adapter whose other side is away is a line in the log, a faulty one a traceback."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flexrelay.devices import DISCOVERED, Discovered
from flexrelay.ingest import Registry
from flexrelay.store import Store


class Telling:
    protocol = "mqtt"

    def __init__(self, *told: str, error: Exception | None = None) -> None:
        self.told, self.error = told, error

    async def discover(self) -> AsyncIterator[str]:
        for each in self.told:
            yield each
        if self.error is not None:
            raise self.error


async def test_what_is_away_is_no_defect(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Store(tmp_path / "s.db", [DISCOVERED]) as store:
        discovered = Discovered(store, "dso", Registry("pilot", "dso"))
        away = Telling("plant-1", error=ConnectionRefusedError("cannot reach opc.tcp://10.0.0.9:4840"))
        faulty = Telling("plant-2", error=RuntimeError("a fault"))
        told = await discovered.sweep({"away": away, "faulty": faulty, "good": Telling("plant-3")}, 1_000)  # type: ignore[dict-item]
        assert told == 3
        assert {found.credential for found in await discovered.waiting()} == {"plant-1", "plant-2", "plant-3"}
    by_name = {record.args[0]: record for record in caplog.records if isinstance(record.args, tuple) and record.args}
    assert by_name["away"].levelno == logging.INFO and by_name["away"].exc_info is None
    assert "cannot reach opc.tcp://10.0.0.9:4840" in by_name["away"].getMessage()
    assert by_name["faulty"].levelno == logging.ERROR and by_name["faulty"].exc_info is not None
