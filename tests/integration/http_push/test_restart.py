"""A request with an Idempotency-Key that comes again after a restart of the gateway: nothing is stored twice, and the
answer says the same. The ingest and the journal are real."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.simulated import T0, Gateway, gateway

from flexrelay_adapters._http import Refusal
from flexrelay_adapters.http import make_adapter
from flexrelay_adapters.http.instants import FILE, Instants
from flexrelay_sdk import Codec, Frame, Receipt, Sink
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import running, until

REGISTERS = {"import_j": {"pointer": "/e", "unit": "J"}}
OWN_TIME = {"kind": "json", "observed_at": {"pointer": "/t", "form": "ms"}, "registers": REGISTERS}
NO_TIME = {"kind": "json", "registers": REGISTERS}
KEY = {"idempotency-key": "k-1"}


@asynccontextmanager
async def started(folder: Path, codec: dict[str, Any], sink: Sink, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A new adapter, and a client with its device's token."""
    (folder / "tokens").write_text(f"meter:{hashlib.sha256(b'a long token').hexdigest()}\n")
    section = {"port": 0, "tokens_file": "tokens", "codec": codec, **changes}
    adapter = make_adapter("push", section, folder, NoNativeCodec())
    async with running(adapter, sink):
        headers = {"authorization": "Bearer a long token"}
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{adapter.port}", headers=headers, timeout=60
        ) as client:
            yield client


@asynccontextmanager
async def restarted(folder: Path, codec: dict[str, Any], **changes: Any) -> AsyncIterator[tuple[Any, Gateway]]:
    """The gateway's reading path, all of it new but for its files."""
    async with (
        gateway(folder / "gw", "http", ["meter"]) as found,
        started(folder, codec, found.ingest, **changes) as client,
    ):
        yield client, found


def outcomes(answer: httpx.Response) -> list[tuple[str, str]]:
    return [(each["outcome"], each.get("reason", "")) for each in answer.json()["outcomes"]]


async def test_readings_with_their_own_time_are_known_again(tmp_path: Path) -> None:
    body = b'[{"t": %d, "e": 1}, {"t": %d, "e": 2}, {"t": %d}]' % (T0, T0 + 1000, T0)
    async with restarted(tmp_path, OWN_TIME) as (client, _):
        first = await client.post("/readings/batch", content=body, headers=KEY)
        assert outcomes(first) == [("stored", ""), ("stored", ""), ("dead_letter", "missing_field")]
        again = await client.post("/readings/batch", content=body, headers=KEY)
        assert again.content == first.content and again.headers["idempotent-replayed"] == "true"
    async with restarted(tmp_path, OWN_TIME) as (client, found):
        again = await client.post("/readings/batch", content=body, headers=KEY)
        assert again.status_code == first.status_code == 200 and "idempotent-replayed" not in again.headers
        assert outcomes(again) == [("duplicate", ""), ("duplicate", ""), ("dead_letter", "missing_field")]
        assert await found.registers("meter") == {T0: {"import_j": 1}, T0 + 1000: {"import_j": 2}}
        assert len(await found.readings("meter")) == 2 and len(await found.journal.letters()) == 2
        one = await client.post(
            "/readings", content=b'{"t": %d, "e": 2}' % (T0 + 1000), headers={"idempotency-key": "1"}
        )
        assert (one.status_code, one.json()) == (200, {"outcome": "duplicate"})


async def test_readings_without_a_time_keep_the_instant_of_their_first_request(tmp_path: Path) -> None:
    body, other = b'[{"e": 1}, {"e": 2}, {"x": 3}, {"e": 4}]', b'[{"e": 7}]'
    async with restarted(tmp_path, NO_TIME, state="state") as (client, found):
        first = await client.post("/readings/batch", content=body, headers=KEY)
        assert [outcome for outcome, _ in outcomes(first)] == ["stored", "stored", "dead_letter", "stored"]
        readings = await found.registers("meter")
        assert len(readings) == 3, "each has an instant of its own"
    for _ in range(2):
        async with restarted(tmp_path, NO_TIME, state="state") as (client, found):
            again = await client.post("/readings/batch", content=body, headers=KEY)
            assert [outcome for outcome, _ in outcomes(again)] == ["duplicate", "duplicate", "dead_letter", "duplicate"]
            assert await found.registers("meter") == readings
            reused = await client.post("/readings/batch", content=other, headers=KEY)
            assert (reused.status_code, reused.json()["error"]) == (422, "idempotency_key_reused")
    async with restarted(tmp_path, NO_TIME, state="state") as (client, found):
        new = await client.post("/readings/batch", content=other, headers={"idempotency-key": "k-2"})
        assert outcomes(new) == [("stored", "")] and len(await found.readings("meter")) == 4
    assert (tmp_path / "state" / FILE).stat().st_mode & 0o077 == 0


class Mute:
    """Stores, and never says so: what a gateway looks like that dies in that moment."""

    def __init__(self, ingest: Sink) -> None:
        self._ingest = ingest
        self.stored = asyncio.Event()

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        await self._ingest.put(frames, codec)
        self.stored.set()
        await asyncio.Event().wait()
        raise AssertionError("never")


async def test_a_gateway_that_ended_between_storing_and_answering(tmp_path: Path) -> None:
    async with gateway(tmp_path / "gw", "http", ["meter"]) as found:
        mute = Mute(found.ingest)
        async with started(tmp_path, NO_TIME, mute, state="state") as client:
            posting = asyncio.create_task(client.post("/readings/batch", content=b'[{"e": 5}]', headers=KEY))
            await until(mute.stored.is_set, 60, "the reading on disk")
            assert not posting.done()
        await asyncio.gather(posting, return_exceptions=True)
        assert posting.exception() is not None or posting.result().status_code == 503, "it is told nothing good"
        before = await found.registers("meter")
    async with restarted(tmp_path, NO_TIME, state="state") as (client, found):
        again = await client.post("/readings/batch", content=b'[{"e": 5}]', headers=KEY)
        assert outcomes(again) == [("duplicate", "")] and await found.registers("meter") == before


async def test_instants_are_bounded_and_a_file_that_is_none_is_said(tmp_path: Path) -> None:
    instants = Instants(tmp_path / "a", most=3, ttl_s=60).open()
    try:
        keys = [("meter", "/readings", str(number)) for number in range(5)]
        for number, key in enumerate(keys):
            assert await instants.first(key, b"body", T0 + number) == T0 + number
        assert [await instants.first(key, b"body", T0 + 9) for key in keys[2:]] == [T0 + 2, T0 + 3, T0 + 4]
        assert await instants.first(keys[0], b"body", T0 + 9) == T0 + 9, "the oldest go"
        assert await instants.first(keys[4], b"body", T0 + 70_000) == T0 + 70_000, "and those of long ago"
        with pytest.raises(Refusal) as told:
            await instants.first(keys[4], b"another", T0 + 70_001)
        assert told.value.status == 422
        many = await asyncio.gather(*(instants.first(("m", "/", "one"), b"b", T0 + 70_000 + n) for n in range(20)))
        assert len(set(many)) == 1, "one key, one instant"
    finally:
        await instants.close()
    with pytest.raises(Refusal) as told:
        await instants.first(keys[0], b"body", T0)
    assert told.value.status == 503
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / FILE).write_bytes(b"no database, and long enough to be seen as none" * 100)
    with pytest.raises(ValueError, match=r"^state: .*cannot be used.*remove it"):
        Instants(tmp_path / "b", most=3, ttl_s=60).open()
