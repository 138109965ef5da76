"""DTLS sessions: who gets one, how long it lasts, and what strangers and replays can do."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority, Pair

from flexrelay_adapters.lwm2m import Lwm2mAdapter
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.layer import Timing
from flexrelay_adapters.lwm2m.device import DeviceClient, Security, Tree
from flexrelay_adapters.lwm2m.dtls.transport import DtlsTransport
from flexrelay_adapters.lwm2m.formats import Record
from flexrelay_sdk.testkit import RecordingSink, until

from .conftest import KEY, Serve

OTHER = "ff" * 16


def device(adapter: Lwm2mAdapter, security: Security, **changes: Any) -> DeviceClient:
    tree = Tree({(1, 0, 0): 1, (3305, 0, 5800): 1.0})
    timing = Timing(ack_timeout_s=0.5)
    return DeviceClient(("127.0.0.1", adapter.coaps_port), "meter", tree, security=security, timing=timing, **changes)


def psk(identity: str = "meter-1", key: str = KEY) -> Security:
    return Security(identity=identity, key=bytes.fromhex(key))


def certified(pair: Pair, authority: Authority) -> Security:
    return Security(ca=authority.ca, certificate=pair.certificate, private_key=pair.key)


def reading(value: int) -> list[Record]:
    return [Record((3305, 0, 5800), float(value), time.time())]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"meter-1:{KEY}\nmeter-2:{OTHER}\n")
    return path


def transport(adapter: Lwm2mAdapter) -> DtlsTransport:
    assert adapter.dtls is not None
    return adapter.dtls


async def test_two_devices_with_keys(serve: Serve, sink: RecordingSink, keys: Path) -> None:
    async with serve(coap=None, coaps={"port": 0, "psk_file": "keys"}, observe=()) as adapter:
        for number, key in ((1, KEY), (2, OTHER)):
            client = device(adapter, psk(f"meter-{number}", key))
            await client.open()
            await client.register()
            assert await client.send(reading(number)) == codes.CHANGED
            client.close()
        assert [frame.credential for frame in sink.frames] == ["meter-1", "meter-2"]
        await until(lambda: len(transport(adapter)) == 0, 60, "the end of the sessions")
        assert [registration.peer for registration in adapter.registrations] == [None, None]


async def test_a_key_that_is_added_counts_at_once(serve: Serve, keys: Path) -> None:
    async with serve(coap=None, coaps={"port": 0, "psk_file": "keys"}, observe=()) as adapter:
        stranger = device(adapter, psk("meter-3", KEY))
        with pytest.raises(ConnectionError):
            await stranger.open()
        stranger.close()
        keys.write_text(keys.read_text() + f"meter-3:{KEY}\n")
        await asyncio.sleep(1.1)
        client = device(adapter, psk("meter-3", KEY))
        await client.open()
        await client.register()
        client.close()


async def test_a_device_that_starts_anew_at_its_address(serve: Serve, sink: RecordingSink, keys: Path) -> None:
    """It lost its session without a word, and its address stays: the new session takes the old one's place."""
    async with serve(coap=None, coaps={"port": 0, "psk_file": "keys"}, observe=()) as adapter:
        client = device(adapter, psk())
        await client.open()
        await client.register()
        port = client.address[1]
        client.close(say=False)
        with pytest.MonkeyPatch.context() as patch:
            real = socket.socket.bind
            patch.setattr(socket.socket, "bind", lambda sock, address: real(sock, (address[0], port)), raising=False)
            again = device(adapter, psk())
            await again.open()
        assert again.address[1] == port
        await again.register()
        assert await again.send(reading(5)) == codes.CHANGED
        assert len(transport(adapter)) == 1 and len(adapter.registrations) == 1
        again.close(say=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket.socket, "bind", lambda sock, address: real(sock, (address[0], port)), raising=False)
            somebody_else = device(adapter, psk("meter-2", OTHER))
            await somebody_else.open()
        assert await somebody_else.send(reading(6)) == codes.NOT_FOUND  # it is not the one that is registered
        await somebody_else.register()
        assert await somebody_else.send(reading(7)) == codes.CHANGED
        assert [frame.credential for frame in sink.frames] == ["meter-1", "meter-2"]
        somebody_else.close()


async def test_a_new_session_is_observed_again(serve: Serve, sink: RecordingSink, keys: Path) -> None:
    """The device goes on with its registration over a new session, and only sends."""
    async with serve(coap=None, coaps={"port": 0, "psk_file": "keys"}) as adapter:
        client = device(adapter, psk())
        await client.open()
        await client.register()
        await until(lambda: any(frame.channel.startswith("/3305/0") for frame in sink.frames), 60, "the first value")
        client.close()
        await until(lambda: len(transport(adapter)) == 0, 60, "the end of the session")
        again = device(adapter, psk())
        await again.open()
        assert await again.send(reading(1)) == codes.CHANGED
        await until(lambda: len(again._observed) == 1, 60, "the observation")
        again.change({(3305, 0, 5800): 4321.0})
        await until(lambda: 4321 in sink.values(), 60, "the notification")
        again.close()


async def test_strangers_keep_nothing_and_disturb_nobody(serve: Serve, sink: RecordingSink, keys: Path) -> None:
    """ClientHellos without a cookie, replayed ones from elsewhere, and records of no session."""
    async with serve(coap=None, coaps={"port": 0, "psk_file": "keys", "max_handshakes": 5}, observe=()) as adapter:
        seen: list[bytes] = []
        real = transport(adapter).endpoint
        assert real is not None
        receive = real._receive

        def note(address: tuple[str, int], data: bytes) -> None:
            seen.append(data)
            receive(address, data)

        real._receive = note
        client = device(adapter, psk())
        await client.open()
        await client.register()
        hellos = [data for data in seen if data[0] == 22 and data[13] == 1]
        assert len(hellos) >= 2  # without and with a cookie; more where the machine stood still
        strangers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
        for number, stranger in enumerate(strangers):
            stranger.bind((f"127.0.50.{number + 1}", 0))
            for data in (*hellos, seen[-1], b"\x16\xfe\xfd" + bytes(40), b""):
                stranger.sendto(data, ("127.0.0.1", adapter.coaps_port))
        await asyncio.sleep(0.3)
        assert len(transport(adapter)) == 1 and len(transport(adapter)._shaking) == 0
        assert await client.send(reading(6)) == codes.CHANGED
        for stranger in strangers:
            stranger.close()
        client.close()


async def test_certificates(serve: Serve, sink: RecordingSink, tmp_path: Path) -> None:
    authority, foreign = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    server = authority.server()
    section = {"port": 0, "ca": authority.ca, "certificate": server.certificate, "key": server.key}
    async with serve(coap=None, coaps=section, observe=()) as adapter:
        client = device(adapter, certified(authority.client("meter-9"), authority))
        await client.open()
        await client.register()
        assert await client.send(reading(9)) == codes.CHANGED
        assert sink.frames[-1].credential == "meter-9"
        client.close()
        bad = {
            "another authority": certified(foreign.client("meter-9"), authority),
            "expired": certified(authority.client("meter-9", ends_in_s=-3600), authority),
            "no name": certified(authority.client(""), authority),
            "a plain address as a name": certified(authority.client("udp:127.0.0.1"), authority),
            "no certificate": Security(ca=authority.ca),
        }
        for why, security in bad.items():
            stranger = device(adapter, security)
            refused = False
            try:
                await stranger.open()
                async with asyncio.timeout(2):
                    await stranger.register()
            except (ConnectionError, TimeoutError):
                refused = True
            finally:
                stranger.close(say=False)
            assert refused, why
        assert {registration.credential for registration in adapter.registrations} == {"meter-9"}


async def test_a_session_ends_with_its_certificate_or_when_idle(serve: Serve, keys: Path) -> None:
    async with serve(coap=None, coaps={"port": 0, "psk_file": "keys", "idle_s": 3600}, observe=()) as adapter:
        client = device(adapter, psk())
        await client.open()
        dtls = transport(adapter)
        (session,) = dtls._sessions.values()
        dtls._end_old(time.monotonic() + 1)
        assert len(dtls) == 1
        session.expires_at = time.time() - 1
        dtls._end_old(time.monotonic())
        assert len(dtls) == 0
        again = device(adapter, psk())
        await again.open()
        dtls._end_old(time.monotonic() + 3610)
        assert len(dtls) == 0
        client.close()
        again.close()


async def test_sessions_are_bounded(serve: Serve, keys: Path) -> None:
    async with serve(coap=None, coaps={"port": 0, "psk_file": "keys", "max_sessions": 3}, observe=()) as adapter:
        keys.write_text("".join(f"m-{number}:{KEY}\n" for number in range(5)))
        await asyncio.sleep(1.1)  # the file is looked at again
        clients = [device(adapter, psk(f"m-{number}")) for number in range(5)]
        for client in clients:
            await client.open()
        assert len(transport(adapter)) == 3
        await clients[-1].register()
        for client in clients:
            client.close()
