"""Flipping a byte of a stored reading is noticed, also by who recomputes the journal's own hashes afterwards."""

import hashlib
import json
import sqlite3
import struct
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from acceptance.conftest import Run

from flexrelay.app import Level, open_site
from flexrelay.config import load

pytestmark = pytest.mark.timeout(1800)

ORG = "agg-b"


def reading_of_the_day(run: Run) -> tuple[int, bytes]:
    """A reading of the delivery day: (journal position, payload)."""
    holder = run.holders[ORG]
    (battery, *_) = [run.market.meter[name] for name in ("s5",)]
    payload = holder.payloads[battery, run.market.bounds(50)[1]]
    return next(frame.position for frame in holder.frames if frame.payload == payload), payload


def flip(journal: Path, position: int, payload: bytes, at: bytes, bit: int = 1) -> int:
    """Flip a bit of the payload's byte after `at`, in the segment that holds it; the segment's first position."""
    with closing(sqlite3.connect(journal)) as connection:
        first, body = connection.execute(
            "SELECT first, body FROM segment WHERE first <= ? AND last >= ?", (position, position)
        ).fetchone()
        assert body.count(payload) == 1
        offset = body.index(payload) + payload.index(at) + len(at)
        changed = body[:offset] + bytes([body[offset] ^ bit]) + body[offset + 1 :]
        connection.execute("UPDATE segment SET body = ? WHERE first = ?", (changed, first))
        connection.commit()
    return int(first)


def rechain(journal: Path) -> None:
    """What a forger with access to the file does next: every segment hash recomputed."""
    with closing(sqlite3.connect(journal)) as connection:
        before = bytes(32)
        for first, last, newest, body in connection.execute(
            "SELECT first, last, newest_at, body FROM segment ORDER BY first"
        ).fetchall():
            digest = hashlib.sha256(before + struct.pack("<qqq", first, last, newest) + body).digest()
            connection.execute("UPDATE segment SET previous = ?, hash = ? WHERE first = ?", (before, digest, first))
            before = digest
        connection.commit()


async def _problems(folder: Path) -> list[str]:
    async with open_site(folder, load(folder), Level.READING) as site:
        report = await site.gateways[ORG].audit.run(lambda done, total: None)
    return report.problems


async def test_a_changed_byte_fails_the_audit(run: Run, copy: Path) -> None:
    assert await _problems(copy) == []
    position, payload = reading_of_the_day(run)
    flip(copy / ORG / "journal.db", position, payload, b'"import_j":')
    assert await _problems(copy)


@pytest.mark.parametrize(
    "at", [b'"import_j":', b'"signature":"', b'"seq":', b'"did":"did:flexrelay:demo:z', b'"observed_at":']
)
async def test_a_changed_byte_with_all_hashes_made_anew_fails_the_audit(run: Run, copy: Path, at: bytes) -> None:
    position, payload = reading_of_the_day(run)
    flip(copy / ORG / "journal.db", position, payload, at)
    rechain(copy / ORG / "journal.db")
    assert any(str(position) in problem for problem in await _problems(copy))


def test_custody_verify_says_so_to_scripts(run: Run, copy: Path) -> None:
    """Exit 0 for the folder as it is, 1 after the flip; of the record itself too."""
    program = Path(sys.executable).with_name("flexrelay")
    position, payload = reading_of_the_day(run)

    def verify(*selection: str) -> tuple[int, str]:
        done = subprocess.run(
            [program, "custody", "verify", copy, "--org", ORG, "--json", *selection],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout

    code, text = verify()
    assert code == 0 and json.loads(text)["verified"] is True
    flip(copy / ORG / "journal.db", position, payload, b'"import_j":')
    rechain(copy / ORG / "journal.db")
    code, text = verify()
    assert code == 1 and json.loads(text)["verified"] is False
    code, _ = verify("--position", str(position))
    assert code == 1
