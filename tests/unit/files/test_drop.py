"""Files in the watched folder: half-written ones are left, whole ones moved with a report."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from conformance.adapters.files.rig import NoNative

from flexrelay_adapters.files import FilesAdapter, make_adapter
from flexrelay_sdk.testkit import RecordingSink, running, until

CSV: dict[str, Any] = {
    "kind": "csv",
    "observed_at": {"pointer": "/t", "form": "s"},
    "registers": {"import_j": {"pointer": "/e", "unit": "Wh"}},
}


def dropping(folder: Path, **changes: Any) -> tuple[FilesAdapter, Path]:
    inbox = folder / "drop" / "in" / "m1"
    inbox.mkdir(parents=True)
    section = {"folder": "drop", "codec": CSV, "poll_s": 0.05, "settle_s": 0.3, **changes}
    return make_adapter("drop", section, folder, NoNative()), inbox


async def test_a_half_written_file_is_not_taken(tmp_path: Path) -> None:
    adapter, inbox = dropping(tmp_path)
    sink = RecordingSink()
    async with running(adapter, sink):
        with (inbox / "day.csv").open("w") as file:
            file.write("t,e\n")
            for row in range(8):
                file.write(f"{1_463_738_400 + row},{row}\n")
                file.flush()
                await asyncio.sleep(0.15)
                assert sink.entered == 0, "taken while it was written"
        (inbox / "other.csv.part").write_text("t,e\n1,1\n")
        (inbox / ".hidden").write_text("t,e\n1,1\n")
        (inbox / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
        (tmp_path / "elsewhere.csv").write_text("t,e\n1,1\n")
        await until(lambda: (tmp_path / "drop/done/m1/day.csv").exists(), what="the file in done")
        await asyncio.sleep(0.5)
    assert sink.values("import_j") == [3600 * row for row in range(8)]
    assert sorted(path.name for path in inbox.iterdir()) == [".hidden", "link.csv", "other.csv.part"]


async def test_one_bad_row_fails_the_file_and_the_report_says_which(tmp_path: Path) -> None:
    adapter, inbox = dropping(tmp_path, settle_s=0.05)
    sink = RecordingSink()
    async with running(adapter, sink):
        for _ in range(2):
            (inbox / "day.csv").write_text("t,e\r\n10,1\r\n11,x\r\n12,3\r\n")
            await until(lambda: not (inbox / "day.csv").exists(), what="the move")
    failed = tmp_path / "drop/failed/m1"
    names = ["day.csv", "day.csv.1", "day.csv.1.report.json", "day.csv.report.json"]
    assert sorted(path.name for path in failed.iterdir()) == names
    report = json.loads((failed / "day.csv.report.json").read_text())
    assert (report["readings"], report["stored"], report["dead_letter"]) == (3, 2, 1)
    assert report["dead_letters"] == [{"reading": 2, "reason": "not_a_number"}] and len(report["sha256"]) == 64
    assert sink.frames[0].payload == b"t,e\n10,1" and sink.frames[0].credential == "m1"


async def test_a_file_too_large_and_one_without_rows_fail_with_a_reason(tmp_path: Path) -> None:
    adapter, inbox = dropping(tmp_path, settle_s=0.05, max_file_bytes=100)
    sink = RecordingSink()
    async with running(adapter, sink):
        (inbox / "giant.csv").write_text("t,e\n" + "1,2\n" * 100)
        (inbox / "empty.csv").write_text("t,e\n")
        await until(lambda: len(sink.dead) == 2, what="two dead letters")
        await until(lambda: not list(inbox.iterdir()), what="the moves")
    assert sorted(reason for _, reason in sink.dead) == ["bad_items", "oversized"]
    assert "oversized" in json.loads((tmp_path / "drop/failed/m1/giant.csv.report.json").read_text())["error"]
