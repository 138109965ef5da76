"""Files in the watched folder: half-written ones are left, whole ones moved with a report."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from flexrelay_adapters.files import FilesAdapter, make_adapter
from flexrelay_adapters.files.folder import DropFolder, Found
from flexrelay_sdk.quality.check import NoNativeCodec
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
    return make_adapter("drop", section, folder, NoNativeCodec()), inbox


class Watched:
    """The clock of every folder, in the test's hands, and how often they were looked through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self.looks = 0
        real = DropFolder.look

        def look(folder: DropFolder) -> list[Found]:
            found = real(folder)
            self.looks += 1
            return found

        monkeypatch.setattr(DropFolder, "look", look)
        monkeypatch.setattr("flexrelay_adapters.files.folder.time", self)

    def monotonic(self) -> float:
        return self.now_s

    async def later(self, seconds: float) -> None:
        """So much later, and looked through since then."""
        self.now_s += seconds
        seen = self.looks
        await until(lambda: self.looks >= seen + 2, what="two looks")


async def test_a_half_written_file_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, inbox = dropping(tmp_path)
    sink, watched = RecordingSink(), Watched(monkeypatch)
    async with running(adapter, sink):
        with (inbox / "day.csv").open("w") as file:
            file.write("t,e\n")
            for row in range(8):
                file.write(f"{1_463_738_400 + row},{row}\n")
                file.flush()
                await watched.later(0.2)
                assert sink.entered == 0, "taken while it was written"
        (inbox / "other.csv.part").write_text("t,e\n1,1\n")
        (inbox / ".hidden").write_text("t,e\n1,1\n")
        (inbox / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
        (tmp_path / "elsewhere.csv").write_text("t,e\n1,1\n")
        await watched.later(1)
        await until(lambda: (tmp_path / "drop/done/m1/day.csv").exists(), what="the file in done")
        await watched.later(1)
    assert sink.values("import_j") == [3600 * row for row in range(8)]
    assert sorted(path.name for path in inbox.iterdir()) == [".hidden", "link.csv", "other.csv.part"]


async def test_what_cannot_be_moved_keeps_no_other_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is older than all others, and complained about once."""
    adapter, inbox = dropping(tmp_path, settle_s=0.05)
    (tmp_path / "drop" / "in" / "m2").mkdir()
    (tmp_path / "drop" / "done").mkdir()
    (tmp_path / "drop" / "done" / "m1").write_text("in the way")
    (inbox / "stuck.csv").write_text("t,e\n10,1\n")
    os.utime(inbox / "stuck.csv", (1, 1))
    sink = RecordingSink()
    async with running(adapter, sink):
        for number in range(3):
            (tmp_path / "drop/in/m2/day.csv").write_text(f"t,e\n{number},{number}\n")
            await until(lambda: not (tmp_path / "drop/in/m2/day.csv").exists(), 60, "the other sender's move")
        assert (inbox / "stuck.csv").exists() and caplog.text.count("is left where it is") == 1
        (tmp_path / "drop" / "done" / "m1").unlink()
        await until(lambda: not (inbox / "stuck.csv").exists(), 60, "the move")


@pytest.mark.parametrize("name", [b"x" * 255, b"\xff\xfe.csv", b"two\nlines"])
async def test_strange_names_are_taken(tmp_path: Path, name: bytes) -> None:
    adapter, inbox = dropping(tmp_path, settle_s=0.05)
    path = inbox / os.fsdecode(name)
    path.write_text("t,e\n10,x\n")
    nobody = inbox.parent / os.fsdecode(b"\xff") / "of nobody.csv"
    nobody.parent.mkdir()
    nobody.write_text("t,e\n10,x\n")
    sink = RecordingSink()
    async with running(adapter, sink):
        await until(lambda: not path.exists(), 60, "the move")
        await asyncio.sleep(0.3)
    ((frame, reason),) = sink.dead
    assert nobody.exists(), "no credential has such a name"
    assert reason == "not_a_number" and frame.channel.encode().startswith(b"in/m1/")
    (report,) = (tmp_path / "drop" / "failed" / "m1").glob("*.report.json")
    assert json.loads(report.read_text())["file"] == path.name


async def test_without_a_time_of_its_own_a_reading_that_is_taken_again_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapping = {"kind": "json", "registers": {"power_w": {"pointer": "/p", "unit": "W"}}}
    adapter, inbox = dropping(tmp_path, settle_s=0.05, codec=mapping)
    (inbox / "a.json").write_text('[{"p": 1}, {"p": 2}]')
    sink, finish = RecordingSink(), DropFolder.finish

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DropFolder, "finish", full)
    async with running(adapter, sink):
        await until(lambda: len(sink.frames) >= 4, 60, "the second time")
    monkeypatch.setattr(DropFolder, "finish", finish)
    section = {"folder": "drop", "codec": mapping, "poll_s": 0.05, "settle_s": 0.05}
    async with running(make_adapter("drop", section, tmp_path, NoNativeCodec()), sink):
        await until(lambda: not (inbox / "a.json").exists(), 60, "the move")
        (inbox / "a.json").write_text('{"p": 3}')
        await until(lambda: not (inbox / "a.json").exists(), 60, "the next one's move")
    *again, last = [frame.received_at for frame in sink.frames]
    assert len(again) >= 6 and set(again[::2]) == {again[0]} and set(again[1::2]) == {again[0] + 1} != {last}
    assert [path.name for path in (tmp_path / "drop/done/m1").iterdir() if path.name.startswith(".")] == []


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
