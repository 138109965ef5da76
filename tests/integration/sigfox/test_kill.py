"""kill -9 of a gateway that answers Sigfox callbacks: what it answered 204 for is in the journal, whole and once.

`make soak` runs the full count.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from support.any_gateway import KilledGateway
from support.chance import told_seed
from support.http_device import free_port
from support.kills import Pushing, kills_over_http

TOKEN = "token of the backend"
DEVICES = [f"{number:06X}" for number in range(0x1A2B00, 0x1A2B14)]
START_S = 1_700_000_000
CI_KILLS, SOAK_KILLS = 5, 60


def callback(number: int, count: int) -> bytes:
    """A reading every ten minutes."""
    body = {
        "device": DEVICES[number],
        "time": START_S + 600 * count,
        "data": count.to_bytes(4, "big").hex(),
        "seqNumber": count % 4096,
        "ack": False,
    }
    return json.dumps(body).encode()


async def campaign(folder: Path, kills: int) -> None:
    (folder / "tokens").write_text(f"backend:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    port = free_port()
    section = {
        "port": port,
        "tokens_file": "tokens",
        "payload": {"fields": {"e": {"offset": 0, "length": 4}}},
        "mapping": {"registers": {"import_j": {"pointer": "/e", "unit": "Wh"}}},
    }
    load = Pushing(port, "/sigfox", len(DEVICES), lambda _: {"authorization": f"Bearer {TOKEN}"}, callback)
    await kills_over_http(KilledGateway(folder, "sigfox", section, DEVICES), load, kills, random.Random(told_seed()))


@pytest.mark.timeout(600)
async def test_a_few_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, CI_KILLS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_many_kills(tmp_path: Path) -> None:
    await campaign(tmp_path, SOAK_KILLS)
