"""A thousand good devices beside a hundred hostile ones; unknown, revoked and slow ones."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from support.lwm2m_devices import Device, address

from flexrelay_adapters.lwm2m import Lwm2mAdapter
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.codes import CONTENT_FORMAT
from flexrelay_adapters.lwm2m.coap.message import path_options, uint
from flexrelay_adapters.lwm2m.coap.udp import UdpEndpoint
from flexrelay_adapters.lwm2m.device import DeviceClient, NotRegistered, Tree
from flexrelay_adapters.lwm2m.formats import Record
from flexrelay_sdk import Codec, Frame, Outcome, Receipt
from flexrelay_sdk.testkit import RecordingSink, until

from .conftest import KEY, Serve

TESTS = Path(__file__).parents[2]


class Choosy(RecordingSink):
    """Takes no readings of some credentials, as the gateway does with unknown and revoked devices."""

    def __init__(self) -> None:
        super().__init__()
        self.refused_credentials: dict[str, str] = {}

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        receipts = list(await super().put(frames, codec))
        for index, frame in enumerate(frames):
            reason = self.refused_credentials.get(frame.credential)
            if reason is not None:
                receipts[index] = Receipt(Outcome.DEAD_LETTER, reason=reason)
        return receipts


def device(adapter: Lwm2mAdapter, host: str, **changes: object) -> DeviceClient:
    tree = Tree({(1, 0, 0): 1, (3, 0, 0): "x", (3305, 0, 5800): 1.0})
    return DeviceClient(("127.0.0.1", adapter.coap_port), "meter", tree, local=host, **changes)  # type: ignore[arg-type]


def reading(value: int, at: float | None = None) -> list[Record]:
    return [Record((3305, 0, 5800), value, at)]


@pytest.mark.timeout(600)
async def test_a_thousand_good_and_a_hundred_hostile(
    serve: Serve, sink: RecordingSink, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / "keys").write_text(f"meter-1:{KEY}\n")
    section = {
        "coaps": {"port": 0, "psk_file": "keys", "max_handshakes": 50},
        "observe": (),
        "rate": 10.0,
        "burst": 30.0,
        "reply_cache": 20_000,
    }
    async with serve(**section) as adapter:
        devices = [Device(number, adapter.coap_port) for number in range(1_000)]
        before = psutil.Process().memory_info().rss
        hostile = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "support.lwm2m_hostile",
            str(adapter.coap_port),
            str(adapter.coaps_port),
            "100",
            "12",
            cwd=TESTS,
            stdout=asyncio.subprocess.PIPE,
        )
        lives = [asyncio.create_task(each.live(2.0)) for each in devices]
        output, _ = await hostile.communicate()
        try:
            await until(
                lambda: all(len(each.acknowledged) >= 3 for each in devices), 150, "three answers for everybody"
            )
        finally:
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)
        grown = psutil.Process().memory_info().rss - before
        stored = {frame.payload for frame in sink.frames if frame.credential.startswith("udp:127.0.")}
        assert all(payload in stored for each in devices for payload in each.acknowledged)
        counts = adapter.layer.counts
        assert int(output) > 1_000
        for kind in ("duplicate", "malformed", "unasked"):
            assert counts[kind] > 0, (kind, counts)
        # Whether the rate's limit or the kernel's buffer holds a flood back depends on the machine.
        assert counts["limited"] > 0 or "the kernel dropped" in caplog.text, counts
        assert len(adapter.registrations) <= 1_100
        assert adapter.dtls is not None and len(adapter.dtls) == 0
        assert grown < 150 * 2**20, f"grew by {grown:,} bytes, of which the sink and the good devices are part"
        slowest = max(each.slowest_s for each in devices)
        print(f"\n{int(output):,} hostile messages, slowest answer {slowest:.2f} s, {dict(counts)}")


async def test_strangers_are_not_heard(serve: Serve, sink: RecordingSink) -> None:
    async with serve(coap={"port": 0, "allow": ["127.0.66.0/24"]}) as adapter:
        known, stranger = device(adapter, "127.0.66.1"), device(adapter, "127.0.67.1")
        await known.open()
        await stranger.open()
        await known.register()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await stranger.register()
        assert adapter.firewall.counts["strangers"] >= 1 and len(adapter.registrations) == 1
        known.close()
        stranger.close()


@pytest.mark.parametrize("reason", ["unknown_device", "device_deactivated", "device_suspended", "not_permitted"])
async def test_a_sender_that_the_gateway_does_not_take(serve: Serve, reason: str) -> None:
    sink = Choosy()
    async with serve(sink, observe=(), refused_for_s=3600) as adapter:
        revoked, good = device(adapter, "127.0.66.1"), device(adapter, "127.0.66.2")
        for each in (revoked, good):
            await each.open()
            await each.register()
            assert await each.send(reading(1)) == codes.CHANGED
        sink.refused_credentials["udp:127.0.66.1"] = reason
        assert await revoked.send(reading(2)) == codes.FORBIDDEN
        before = sink.entered
        assert await revoked.send(reading(3)) == codes.FORBIDDEN  # without a look at it
        with pytest.raises(NotRegistered, match=r"4\.03"):
            await revoked.register()
        assert sink.entered == before and len(adapter.registrations) == 1
        assert await good.send(reading(4)) == codes.CHANGED
        adapter.firewall._clock = lambda: time.monotonic() + 3601
        sink.refused_credentials.clear()  # enrolled, reinstated
        await revoked.register()
        assert await revoked.send(reading(5)) == codes.CHANGED
        revoked.close()
        good.close()


async def test_an_endpoint_name_is_no_identity(serve: Serve, sink: RecordingSink) -> None:
    """Two devices that call themselves the same are two; and nobody can touch another's registration."""
    async with serve(observe=()) as adapter:
        first, second = device(adapter, "127.0.66.1"), device(adapter, "127.0.66.2")
        for each in (first, second):
            await each.open()
            await each.register()
        assert len(adapter.registrations) == 2
        second._location = first._location
        with pytest.raises(NotRegistered, match=r"4\.04"):
            await second.update()
        answer = await second.ask(codes.DELETE, path_options(first._location))
        assert answer.code == codes.NOT_FOUND and len(adapter.registrations) == 2
        await first.send(reading(1))
        await second.ask(codes.POST, [*path_options("/dp"), uint(CONTENT_FORMAT, 112)], sink.frames[0].payload)
        assert [frame.credential for frame in sink.frames] == ["udp:127.0.66.1", "udp:127.0.66.2"]
        first.close()
        second.close()


async def test_duplicates_are_answered_alike_and_stored_once(serve: Serve, sink: RecordingSink) -> None:
    async with serve(observe=()) as adapter:
        client = device(adapter, "127.0.66.1")
        await client.open()
        await client.register()
        sent: list[bytes] = []
        peer = client._link.peer
        assert peer is not None
        send = peer.send
        peer.send = lambda data: (sent.append(data), send(data))[1]
        assert await client.send(reading(7)) == codes.CHANGED
        answers: list[bytes] = []
        again = UdpEndpoint.open("127.0.66.1", 0, lambda _, data: answers.append(data))
        client._link._receive = lambda _, data: answers.append(data)
        for _ in range(5):
            send(sent[-1])
        await until(lambda: len(answers) == 5, 60, "five answers")
        assert len(set(answers)) == 1 and answers[0][1] == codes.CHANGED
        assert sink.values() == [7] and adapter.layer.counts["duplicate"] >= 5
        again.close()
        client.close()


async def test_readings_without_a_time_get_different_instants(serve: Serve, sink: RecordingSink) -> None:
    async with serve(observe=()) as adapter:
        client = device(adapter, address(1))
        await client.open()
        await client.register()
        sink.hold()
        sending = [asyncio.create_task(client.ask(*_send(value))) for value in range(3)]
        await asyncio.sleep(0.3)
        sink.release()
        await asyncio.gather(*sending)
        instants = [measurement.observed_at for measurement in sink.measurements]
        assert len(set(instants)) == 3 and instants == sorted(instants)
        client.close()


def _send(value: int) -> tuple[int, list[tuple[int, bytes]], bytes]:
    return codes.POST, [*path_options("/dp"), uint(CONTENT_FORMAT, 110)], b'[{"n":"/3305/0/5800","v":%d}]' % value
