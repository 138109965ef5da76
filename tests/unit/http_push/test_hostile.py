"""1,000 good devices and 100 hostile ones at one HTTP server: nobody disturbs the others.

The good ones share a few connections, as behind a proxy; they are answered 200 at their first try.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from conformance.adapters.http.rig import tokens
from support.chance import told_seed
from support.crowd import GOOD, HOSTILE, bounded_memory, nobody_was_disturbed
from support.http_raw import RawHttp

from flexrelay_adapters.http import make_adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running

ROUNDS, CONNECTIONS = 2, 40
HUNG_BYTES = 420_000
"""Of each body that never ends: together more than all that may wait."""


def token(name: str) -> str:
    return f"a long token of {name}".replace(" ", "-")


ATTACKS: Sequence[tuple[str, str, bytes, int, str]] = (
    ("/readings", "", b'{"p": 1', 422, "not_json"),
    ("/readings", "", b"\xff\xfe", 422, "not_utf8"),
    ("/readings", "", b'{"p": "1"}', 422, "not_a_number"),
    ("/readings", "", b"[" * 50_000, 422, "not_json"),
    ("/readings/batch", "", b"[1,", 422, "not_json"),
    ("/readings", "x", b'{"p": 1}', 401, "unauthorized"),
    ("/readings/m1", "", b'{"p": 1}', 403, "not_yours"),
)
"""(Path, what is added to the token, body, status, reason); those with 422 are dead letters."""


async def good_ones(port: int, names: asyncio.Queue[tuple[str, bytes]]) -> None:
    async with RawHttp.open(port) as connection:
        while not names.empty():
            name, body = names.get_nowait()
            await connection.post("/readings", token(name), body)
            status, told = await connection.answer()
            assert (status, told["outcome"]) == (200, "stored"), f"{name} was told {status} {told}"


async def hostile_one(port: int, name: str) -> None:
    """Whatever it does is refused with a reason."""
    for path, more, body, status, reason in ATTACKS:
        async with RawHttp.open(port) as connection:
            await connection.post(path, token(name) + more, body)
            told = await connection.answer()
            assert told[0] == status and reason in (told[1].get("reason"), told[1].get("error")), (path, told)
    async with RawHttp.open(port) as connection:
        await connection.post("/readings", token(name), b"", announced=2**21)
        assert (await connection.answer())[0] == 413
    async with RawHttp.open(port) as connection:
        await connection.say(b"\x16\x03\x01 not HTTP at all \r\n\r\n")
        with suppress(EOFError):
            assert (await connection.answer())[0] == 400


async def hanging_one(port: int, name: str, over: asyncio.Event) -> None:
    """A body that never ends, and a head that never ends."""
    async with RawHttp.open(port) as body, RawHttp.open(port) as head:
        await head.say(b"POST /readings HTTP/1.1\r\nhost: x\r\nauth")
        with suppress(OSError):
            await body.post("/readings", token(name), b"x" * HUNG_BYTES, announced=2**20)
        status, told = await body.answer()
        assert (status, told["error"]) in ((408, "too_slow"), (503, "busy")), told
        await over.wait()


@pytest.mark.timeout(600)
async def test_the_good_ones_are_not_disturbed(tmp_path: Path) -> None:
    chance, sink = random.Random(told_seed()), RecordingSink()
    good, hostile = [f"m{n}" for n in range(GOOD)], [f"evil{n}" for n in range(HOSTILE)]
    (tmp_path / "tokens").write_text(tokens(**{name: token(name) for name in (*good, *hostile)}))
    codec = {"kind": "json", "registers": {"power_w": {"pointer": "/p", "unit": "W"}}}
    section = {"port": 0, "tokens_file": "tokens", "codec": codec, "body_timeout_s": 10.0}
    adapter, over = make_adapter("push", section, tmp_path, NoNativeCodec()), asyncio.Event()
    with bounded_memory():
        async with running(adapter, sink), asyncio.TaskGroup() as group:
            for name in hostile:
                group.create_task(hanging_one(adapter.port, name, over))
            for turn in range(ROUNDS):
                names: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
                for n in chance.sample(range(GOOD), GOOD):
                    names.put_nowait((good[n], b'{"p": %d}' % (turn * 10_000 + n)))
                mine = [good_ones(adapter.port, names) for _ in range(CONNECTIONS)]
                await asyncio.gather(*mine, *(hostile_one(adapter.port, name) for name in hostile[turn::ROUNDS]))
            over.set()
    letters = Counter(reason for _, _, _, status, reason in ATTACKS if status == 422)
    expected = {name: [turn * 10_000 + n for turn in range(ROUNDS)] for n, name in enumerate(good)}
    nobody_was_disturbed(sink, expected, dict.fromkeys(hostile, letters))
