"""Files of 1,000 good senders and 100 hostile ones in one drop folder: nobody disturbs the others."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from support.crowd import GOOD, HOSTILE, bounded_memory, nobody_was_disturbed

from flexrelay_adapters.files import make_adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running, until

ROWS = 4
MOST = 100_000
CODEC = {
    "kind": "csv",
    "observed_at": {"pointer": "/t", "form": "s"},
    "registers": {"power_w": {"pointer": "/p", "unit": "W"}},
}
BAD: dict[str, tuple[bytes, list[str]]] = {
    "empty.csv": (b"", ["bad_items"]),
    "no_rows.csv": (b"t,p\n", ["bad_items"]),
    "no_header.csv": (b"1463738400,5\n1463738401,6\n", ["missing_field"]),
    "binary.csv": (bytes(range(256)) * 8, ["not_utf8"] * 8),
    "torn.csv": (b"t,p\n1463738400,", ["missing_field"]),
    "long_row.csv": (b"t,p\n1463738400," + b"9" * 80_000 + b"\n", ["not_a_number"]),
    "giant.csv": (b"t,p\n" + b"1463738400,5\n" * 20_000, ["oversized"]),
    "text.csv": (b"t,p\n1463738400,x\nyesterday,5\n", ["not_a_number", "bad_time"]),
}
"""Name → (content, reasons of its dead letters)."""


@pytest.mark.parametrize("share", [5, pytest.param(1, marks=pytest.mark.soak)])
async def test_the_good_ones_are_not_disturbed(tmp_path: Path, share: int) -> None:
    """A fifth of them in CI: each file is moved with two fsyncs."""
    count, bad = GOOD // share, HOSTILE // share
    inbox, elsewhere = tmp_path / "drop" / "in", tmp_path / "elsewhere"
    inbox.mkdir(parents=True)
    elsewhere.mkdir()
    good, hostile = [f"m{n}" for n in range(count)], [f"evil{n}" for n in range(bad)]
    for n, name in enumerate(good):
        (inbox / name).mkdir()
        rows = "".join(f"{1_463_738_400 + row},{row * 10_000 + n}\n" for row in range(ROWS))
        (inbox / name / "day.csv").write_text("t,p\n" + rows)
    (elsewhere / "secret.csv").write_text("t,p\n1463738400,1\n")
    judged: dict[str, Counter[str]] = {}
    for evil in hostile:
        place = inbox / evil
        place.mkdir()
        for file, (content, _) in BAD.items():
            (place / file).write_bytes(content)
        judged[evil] = Counter(reason for _, reasons in BAD.values() for reason in reasons)
        (place / "link.csv").symlink_to(elsewhere / "secret.csv")
        (place / "folder.csv").mkdir()
        os.mkfifo(place / "pipe.csv")  # reading it would wait for ever
    (inbox / "stray.csv").write_text("t,p\n1463738400,1\n")
    (inbox / "way_out").symlink_to(elsewhere, target_is_directory=True)
    section = {"folder": "drop", "codec": CODEC, "poll_s": 0.05, "settle_s": 0.05, "max_file_bytes": MOST}
    sink = RecordingSink()
    with bounded_memory():
        async with running(make_adapter("drop", section, tmp_path, NoNativeCodec()), sink):
            wanted = bad * len(BAD)
            failed = tmp_path / "drop" / "failed"
            done = tmp_path / "drop" / "done"
            await until(lambda: _reports(failed) == wanted, 240, "the reports of the bad ones")
            await until(lambda: _reports(done) == count, 60, "the reports of the good ones")
    nobody_was_disturbed(sink, {name: [row * 10_000 + n for row in range(ROWS)] for n, name in enumerate(good)}, judged)
    for evil in hostile:
        for file in BAD:
            report = json.loads((failed / evil / f"{file}.report.json").read_text())
            assert report["dead_letter"] >= 1 and (report["dead_letters"] or report["error"])
    assert (inbox / "stray.csv").exists() and (elsewhere / "secret.csv").exists()


def _reports(folder: Path) -> int:
    return sum(1 for _ in folder.glob("*/*.report.json"))
