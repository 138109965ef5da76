"""kill -9 of the gateway in mid-stream: what a device was answered 200 for is in the journal, whole and once.

`make soak` runs the full count.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from support.any_gateway import KilledGateway
from support.chance import told_seed
from support.http_device import free_port
from support.kills import Pushing, kills_over_http

DEVICES = 20
START_MS = 1_700_000_000_000
CI_KILLS, SOAK_KILLS = 5, 120


async def campaign(folder: Path, kills: int) -> None:
    lines = [f"meter{n}:{hashlib.sha256(b'token of meter%d' % n).hexdigest()}\n" for n in range(DEVICES)]
    (folder / "tokens").write_text("".join(lines))
    registers = {"import_j": {"pointer": "/e", "unit": "J"}}
    codec = {"kind": "json", "observed_at": {"pointer": "/t", "form": "ms"}, "registers": registers}
    port = free_port()
    section = {"port": port, "tokens_file": "tokens", "codec": codec}
    load = Pushing(
        port,
        "/readings",
        DEVICES,
        lambda number: {"authorization": f"Bearer token of meter{number}"},
        lambda number, count: b'{"d":%d,"t":%d,"e":%d}' % (number, START_MS + count * 1000, count),
    )
    gateway = KilledGateway(folder, "http", section, [f"meter{n}" for n in range(DEVICES)])
    await kills_over_http(gateway, load, kills, random.Random(told_seed()))


@pytest.mark.timeout(600)
async def test_a_few_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, CI_KILLS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_many_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, SOAK_KILLS)
