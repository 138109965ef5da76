"""Callbacks of 1,000 good Sigfox devices and 100 hostile ones: nobody disturbs the others."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from conformance.adapters.sigfox.rig import SECTION, TOKEN
from support.chance import told_seed
from support.crowd import GOOD, HOSTILE, bounded_memory, nobody_was_disturbed
from support.http_raw import RawHttp

from flexrelay_adapters.sigfox import make_adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running

ROUNDS, CONNECTIONS = 2, 40


def callback(device: str, value: int, **changes: object) -> bytes:
    body = {"device": device, "time": 1_463_738_400 + value // 10_000, "data": value.to_bytes(4, "big").hex()}
    return json.dumps({**body, "seqNumber": value // 10_000, "ack": False, **changes}).encode()


def attacks(device: str) -> list[tuple[bytes, str, str]]:
    """(Body, credential and reason of its dead letter); a body that is no uplink is nobody's."""
    return [
        (callback(device, 7)[:-5], "", "not_json"),
        (b"\xff\xfe", "", "not_utf8"),
        (b"[]", "", "not_an_uplink"),
        (callback(device, 7, data="0000000g"), "", "not_an_uplink"),
        (callback("not hexadecimal " + device, 7), "", "not_an_uplink"),
        (callback(device, 7, data="0001"), device, "too_short"),
        (callback(device, 7, data="00" * 13), "", "wrong_length"),
        (callback(device, 7, time=-5), "", "bad_time"),
    ]


async def backend(port: int, bodies: asyncio.Queue[bytes]) -> None:
    async with RawHttp.open(port) as connection:
        while not bodies.empty():
            await connection.post("/sigfox", TOKEN, bodies.get_nowait())
            status, _ = await connection.answer()
            assert status == 204, "a callback is taken, whatever is in it: its dead letter says why"


async def stranger(port: int) -> None:
    async with RawHttp.open(port) as connection:
        await connection.post("/sigfox", TOKEN + "x", callback("1", 1))
        assert (await connection.answer())[0] == 401
    async with RawHttp.open(port) as connection:
        await connection.post("/sigfox", TOKEN, b"", announced=2**27)
        assert (await connection.answer())[0] == 413


@pytest.mark.timeout(600)
async def test_the_good_ones_are_not_disturbed(tmp_path: Path) -> None:
    chance, sink = random.Random(told_seed()), RecordingSink()
    good, hostile = [f"{0xA0000 + n:X}" for n in range(GOOD)], [f"{0xE0000 + n:X}" for n in range(HOSTILE)]
    (tmp_path / "tokens").write_text(f"backend:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    adapter = make_adapter("meters", {**SECTION, "port": 0}, tmp_path, NoNativeCodec())
    judged: dict[str, Counter[str]] = {name: Counter() for name in ("", *hostile)}
    with bounded_memory():
        async with running(adapter, sink):
            for turn in range(ROUNDS):
                batch = [callback(name, turn * 10_000 + n) for n, name in enumerate(good)]
                for evil in hostile:
                    for body, credential, reason in attacks(evil):
                        batch.append(body)
                        judged[credential][reason] += 1
                chance.shuffle(batch)
                bodies: asyncio.Queue[bytes] = asyncio.Queue()
                for body in batch:
                    bodies.put_nowait(body)
                mine = [backend(adapter.port, bodies) for _ in range(CONNECTIONS)]
                await asyncio.gather(*mine, *(stranger(adapter.port) for _ in range(HOSTILE)))
    expected = {name: [turn * 10_000 + n for turn in range(ROUNDS)] for n, name in enumerate(good)}
    nobody_was_disturbed(sink, expected, judged)
