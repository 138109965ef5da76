"""kill -9 of a gateway that takes files: a file in `done` is in the journal whole and once, and every other one is
still where its sender put it. `make soak` runs the full counts.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from support.any_gateway import KilledGateway
from support.chance import told_seed
from support.kills import LONGEST_S, PATIENCE_S
from support.load import JournalChecker

from flexrelay_sdk.testkit import until

SENDERS = ["meter0", "meter1", "meter2"]
READINGS = 300
"""In a file: more than one batch, so that a kill finds files of which a part is in the journal."""
WAITING = 6
"""Files in the drop folder at any time."""
START = datetime(2016, 5, 20, tzinfo=UTC)
KEY = ec.derive_private_key(4711, ec.SECP256R1())
SOAK_KILLS = 20

Written = tuple[bytes, list[bytes]]
"""A file, and the frames that it is made of."""


def csv(count: int) -> Written:
    header = b"time;import"
    rows = [f"{at(n).isoformat()};{n}".encode() for n in numbers(count)]
    return b"\n".join([header, *rows]) + b"\n", [header + b"\n" + row for row in rows]


def a_list(count: int) -> Written:
    readings = [json.dumps({"t": at(n).isoformat(), "e": n}).encode() for n in numbers(count)]
    return b"[" + b",\n".join(readings) + b"]", readings


def ocmf(count: int) -> Written:
    texts = []
    for n in numbers(count):
        reading = {"TM": f"{at(n):%Y-%m-%dT%H:%M:%S,000+0000} S", "RV": n, "RI": "1-b:1.8.0", "RU": "Wh", "ST": "G"}
        payload = json.dumps({"FV": "1.0", "PG": f"T{n}", "RD": [reading]})
        signature = KEY.sign(payload.encode(), ec.ECDSA(hashes.SHA256())).hex()
        texts.append(f'OCMF|{payload}|{{"SD":"{signature}"}}'.encode())
    return b"\n".join(texts) + b"\n", texts


def untimed(count: int) -> Written:
    """One reading: its instant is that of its reception, which must be the same when the file is taken again."""
    reading = b'{"e": %d}' % count
    return reading, [reading]


def numbers(count: int) -> range:
    return range(count * READINGS, (count + 1) * READINGS)


def at(number: int) -> datetime:
    return START + timedelta(minutes=number)


KINDS: dict[str, tuple[Callable[[int], Written], dict[str, Any]]] = {
    "csv": (
        csv,
        {
            "kind": "csv",
            "delimiter": ";",
            "observed_at": {"pointer": "/time", "form": "iso8601"},
            "registers": {"import_j": {"pointer": "/import", "unit": "Wh"}},
        },
    ),
    "json": (
        a_list,
        {
            "kind": "json",
            "observed_at": {"pointer": "/t", "form": "iso8601"},
            "registers": {"import_j": {"pointer": "/e", "unit": "Wh"}},
        },
    ),
    "untimed": (untimed, {"kind": "json", "registers": {"import_j": {"pointer": "/e", "unit": "Wh"}}}),
    "ocmf": (ocmf, {"kind": "ocmf", "keys_file": "keys"}),
}


class Drop:
    """The folder and what was put there."""

    def __init__(self, root: Path, make: Callable[[int], Written]) -> None:
        self.done = root / "done"
        self.files: dict[str, Written] = {}
        self._root = root
        self._make = make
        for sender in SENDERS:
            (root / "in" / sender).mkdir(parents=True)

    async def fill(self) -> None:
        """Until cancelled: whole files appear under their names."""
        while True:
            while len(self.waiting()) < WAITING:
                self.put()
            await asyncio.sleep(0.02)

    def put(self) -> None:
        count = len(self.files)
        sender = SENDERS[count % len(SENDERS)]
        path = self._root / "in" / sender / f"{count:06}"
        written = self.files[f"{sender}/{path.name}"] = self._make(count)
        draft = path.with_name(f"{path.name}.part")
        draft.write_bytes(written[0])
        draft.rename(path)

    def waiting(self) -> set[str]:
        return self._names(self._root / "in")

    def taken(self) -> set[str]:
        return {name for name in self._names(self.done) if not name.endswith(".report.json")}

    def check(self) -> Counter[bytes]:
        """The readings of what was taken; every file is at one place, whole."""
        taken = self.taken()
        assert taken | self.waiting() == self.files.keys() and not taken & self.waiting()
        assert not (self._root / "failed").exists()
        for name in taken:
            content, frames = self.files[name]
            assert (self.done / name).read_bytes() == content
            report = json.loads((self.done / f"{name}.report.json").read_text())
            assert report["readings"] == report["stored"] + report["duplicate"] == len(frames)
        return Counter(frame for name in taken for frame in self.files[name][1])

    @staticmethod
    def _names(folder: Path) -> set[str]:
        return {f"{path.parent.name}/{path.name}" for path in folder.glob("*/[!.]*")}


async def campaign(folder: Path, kind: str, kills: int) -> None:
    make, codec = KINDS[kind]
    public = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()
    (folder / "keys").write_text("".join(f"{sender}:{public}\n" for sender in SENDERS))
    section = {"folder": "drop", "codec": codec, "poll_s": 0.02, "settle_s": 0.02, "batch": 100}
    gateway = KilledGateway(folder, "files", section, SENDERS)
    drop = Drop(folder / "drop", make)
    checker = JournalChecker(gateway.journal)
    chance = random.Random(told_seed())
    again = 0

    async def until_there(condition: Callable[[], bool], what: str) -> None:
        def there() -> bool:
            gateway.check()
            return condition()

        await until(there, PATIENCE_S, what)

    for _ in range(kills):
        taken = drop.taken()
        filling = asyncio.create_task(drop.fill())
        async with gateway.running():
            await until_there(lambda before=taken: drop.taken() > before, "a file that is taken")
            await asyncio.sleep(chance.uniform(0, LONGEST_S))
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)
        acknowledged = drop.check()
        await checker.check(acknowledged)
        again += any(frame in checker.stored for name in drop.waiting() for frame in drop.files[name][1])
    async with gateway.running():
        await until_there(lambda: not drop.waiting(), "that all files are taken")
    acknowledged = drop.check()
    await checker.check(acknowledged)
    assert set(checker.stored) == set(acknowledged)
    print(
        f"\n{kills} kills ({again} with a file half taken), {len(drop.files)} files, "
        f"{len(acknowledged):,} acknowledged, {len(checker.stored):,} in the journal"
    )


@pytest.mark.parametrize(("kind", "kills"), [("csv", 2), ("json", 1), ("untimed", 1), ("ocmf", 1)])
@pytest.mark.timeout(600)
async def test_a_few_kills(tmp_path: Path, kind: str, kills: int) -> None:
    await campaign(tmp_path, kind, kills)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(3600)
async def test_many_kills(tmp_path: Path, kind: str) -> None:
    await campaign(tmp_path, kind, SOAK_KILLS)
