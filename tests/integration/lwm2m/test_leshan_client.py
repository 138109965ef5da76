"""Devices by Leshan (Java, Californium, Scandium): every operation, plain, with PSK, X.509, and bootstrapped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from support.certificates import Authority, Pair
from support.leshan import leshan, needs_leshan

from flexrelay_adapters.lwm2m import Lwm2mAdapter
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.formats.tlv import number
from flexrelay_adapters.lwm2m.registration import Registration
from flexrelay_sdk import Command, CommandState, CommandUpdate
from flexrelay_sdk.testkit import RecordingSink, until

from .conftest import KEY, Serve

pytestmark = [needs_leshan, pytest.mark.timeout(600)]


def plain(adapter: Lwm2mAdapter, host: str = "127.0.0.21") -> dict[str, Any]:
    return {"url": f"coap://127.0.0.1:{adapter.coap_port}", "name": "meter", "address": host}


def the_device(adapter: Lwm2mAdapter) -> Registration:
    (registration,) = adapter.registrations
    return registration


def der(pair: Pair) -> tuple[Path, Path]:
    """Certificate and key as Java likes them."""
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    files = pair.certificate.with_suffix(".crt.der"), pair.key.with_suffix(".key.der")
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.DER))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


async def test_registers_updates_and_goes(serve: Serve, sink: RecordingSink) -> None:
    async with serve() as adapter, leshan("Device", **plain(adapter)) as device:
        await device.says("registered /rd/")
        registration = the_device(adapter)
        assert (registration.credential, registration.endpoint) == ("udp:127.0.0.21", "meter")
        assert (3305, 0) in registration.objects and registration.version == "1.1"
        await device.do("update", "updated")
        await device.do("stop", "deregistered")
        assert len(adapter.registrations) == 0


async def test_observations_are_readings(serve: Serve, sink: RecordingSink) -> None:
    async with serve(pmin_s=0, pmax_s=3) as adapter, leshan("Device", **plain(adapter)) as device:
        await until(
            lambda: {f.channel for f in sink.frames} >= {"/3305/0?ct=112", "/3316/0?ct=112"}, 15, "first values"
        )
        for value, seen in (("1234.5", 1234), ("-20", -20), ("7.0", 7)):
            await device.do(f"set /3305/0/5800 {value}", "set")
            await until(lambda seen=seen: seen in sink.values(), 60, "the notification")  # type: ignore[misc]  # bound now
        before = len(sink.frames)
        await until(lambda: len(sink.frames) > before, 60, "a notification because of pmax")
        registration = the_device(adapter)
        token = next(token for token, path in registration.observed.items() if path == "/3305/0")
        peer = registration.peer
        assert peer is not None
        await adapter.operations.cancel(peer, "/3305/0", token)
        count = len(sink.values())
        await device.do("set /3305/0/5800 99", "set")
        await asyncio.sleep(0.5)
        assert 99 not in sink.values() and len(sink.values()) == count
    assert sink.dead == [] and sink.faults == []


@pytest.mark.parametrize("content_format", [codes.SENML_CBOR, codes.SENML_JSON])
async def test_send(serve: Serve, sink: RecordingSink, content_format: int) -> None:
    async with serve(observe=()) as adapter, leshan("Device", **plain(adapter)) as device:
        await device.says("registered")
        await device.do("set /3305/0/5800 1500.25", "set")
        await device.do("set /3305/0/5805 2000.5", "set")
        sent = await device.do(f"send {content_format} /3305/0/5800 /3305/0/5805 /3316/0", "sent")
        assert sent == "sent CHANGED(204)"
        (measurement,) = sink.measurements
        assert measurement.registers == {"power_w": 1500, "import_j": 7_201_800, "voltage_mv": 230_000}
        began = time.time()
        await device.do("collect /3305/0/5800", "collected")
        await asyncio.sleep(0.05)
        await device.do("set /3305/0/5800 1600", "set")
        await device.do("collect /3305/0/5800", "collected")
        await device.do(f"sendcollected {content_format}", "sentcollected")
        took_ms = (time.time() - began) * 1000
        await until(lambda: len(sink.measurements) == 3, 60, "the collected values")
        first, second = sink.measurements[1:]
        assert (first.registers["power_w"], second.registers["power_w"]) == (1500, 1600)
        assert 20 <= second.observed_at - first.observed_at <= took_ms + 100
        assert abs(second.observed_at - began * 1000) < took_ms + 1000


async def test_every_operation(serve: Serve) -> None:
    async with serve(observe=()) as adapter, leshan("Device", **plain(adapter)) as device:
        await device.says("registered")
        peer, do = the_device(adapter).peer, adapter.operations
        assert peer is not None
        await device.do("set /3305/0/5800 12.5", "set")
        for content_format in (codes.SENML_CBOR, codes.SENML_JSON, codes.TLV, codes.TEXT):
            (record,) = await do.read(peer, "/3305/0/5800", content_format)
            value = record.value
            assert (number(value) if isinstance(value, bytes) else float(str(value))) == 12.5, content_format
        assert {record.path for record in await do.read(peer, "/3316/0", codes.TLV)} == {
            (3316, 0, 5700),
            (3316, 0, 5701),
        }
        long = "x" * 5000  # several blocks there and back
        for content_format in (codes.TEXT, codes.SENML_CBOR, codes.TLV):
            await do.write(peer, "/3305/0/5750", long, content_format)
            await device.says("written /3305/0/5750 length 5000")
            (record,) = await do.read(peer, "/3305/0/5750", content_format)
            assert record.value in (long, long.encode())
        await do.write(peer, "/3305/0/6000", b"\x00\xffkey", codes.OPAQUE)  # 6000 is none of the registry
        await device.says("written /3305/0/6000 00ff6b6579")
        for content_format in (codes.OPAQUE, codes.TLV, codes.SENML_CBOR, codes.SENML_JSON):
            (record,) = await do.read(peer, "/3305/0/6000", content_format)
            assert record.value == b"\x00\xffkey", content_format
        await do.execute(peer, "/3305/0/5822", "0='now'")
        await device.says("executed /3305/0/5822")
        await do.write_attributes(peer, "/3305/0/5800", {"pmin": 1, "pmax": 60, "gt": 5.5, "lt": 1, "st": 2})
        assert "</3305/0/5800>;pmin=1;pmax=60;gt=5.5;lt=1;st=2" in await do.discover(peer, "/3305/0")
        await do.write_attributes(peer, "/3305/0/5800", {"gt": None})
        assert "gt=" not in await do.discover(peer, "/3305/0")
        await do.create(peer, 3312, 7, {"5850": True, "5851": 33})
        assert {r.path: r.value for r in await do.read(peer, "/3312/7", codes.SENML_JSON)}[3312, 7, 5851] == 33
        await do.delete(peer, "/3312/7")
        assert "</3312/7>" not in await do.discover(peer, "/3312")
        for content_format in (codes.SENML_CBOR, codes.SENML_JSON):
            records = await do.read_composite(peer, ["/3305/0/5800", "/3316/0/5700", "/3411/0/1"], content_format)
            assert {record.path: record.value for record in records} == {
                (3305, 0, 5800): 12.5,
                (3316, 0, 5700): 230.0,
                (3411, 0, 1): 55,
            }
        await do.write_composite(peer, {"/3312/0/5851": 77, "/3411/0/5": 12})
        assert [record.value for record in await do.read_composite(peer, ["/3312/0/5851", "/3411/0/5"])] == [77, 12]


async def test_thresholds_and_steps_of_notifications(serve: Serve, sink: RecordingSink) -> None:
    """gt and lt: when the value has passed them; st: when it has changed by so much."""
    paths = {"/3305/0/5800": {"gt": 1_000_000.5, "lt": 100}, "/3305/0/5810": {"st": 50}}
    async with (
        serve(observe=tuple(paths), attributes=paths) as adapter,
        leshan("Device", **plain(adapter)) as device,
    ):
        await until(
            lambda: {f.channel for f in sink.frames} == {f"{path}?ct=112" for path in paths}, 60, "first values"
        )
        peer = the_device(adapter).peer
        assert peer is not None
        told = await adapter.operations.discover(peer, "/3305/0")
        assert "5800>;gt=1000000.5;lt=100" in told and "5810>;st=50" in told

        def seen(register: str) -> list[int]:
            return [m.registers[register] for m in sink.measurements if register in m.registers]

        async def told_of(resource: int, register: str, value: int) -> None:
            await device.do(f"set /3305/0/{resource} {value}", "set")
            await until(lambda: value in seen(register), 60, f"{value}, after {seen(register)}")

        # Leshan tells of a value above gt or below lt when the one that it told last was not
        for between, value in ((150, 2_000_000), (2_500_000, 90), (80, 1_500_000)):
            await device.do(f"set /3305/0/5800 {between}", "set")
            await told_of(5800, "power_w", value)
        assert seen("power_w") == [0, 2_000_000, 90, 1_500_000]
        for between, value in ((30, 60), (100, 120)):
            await device.do(f"set /3305/0/5810 {between}", "set")
            await told_of(5810, "reactive_var", value)
        assert seen("reactive_var") == [0, 60, 120]


async def test_composite_observation(serve: Serve, sink: RecordingSink) -> None:
    async with serve(observe=()) as adapter, leshan("Device", **plain(adapter)) as device:
        await device.says("registered")
        registration = the_device(adapter)
        assert registration.peer is not None
        paths = ["/3305/0/5800", "/3316/0/5700"]
        registration.observed[b"together"] = "/"
        await adapter.operations.observe_composite(registration.peer, paths, b"together")
        await device.do("set /3305/0/5800 321", "set")
        await until(lambda: 321 in sink.values(), 60, "the notification")
        assert sink.measurements[-1].registers == {"power_w": 321, "voltage_mv": 230_000}
        await adapter.operations.cancel_composite(registration.peer, paths, b"together")


async def test_psk(serve: Serve, sink: RecordingSink, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"meter-1:{KEY}\n")
    async with serve(coap=None, coaps={"port": 0, "psk_file": "keys"}) as adapter:
        url = f"coaps://127.0.0.1:{adapter.coaps_port}"
        async with leshan("Device", url=url, name="calls-itself-otherwise", identity="meter-1", key=KEY) as device:
            await device.says("registered")
            await device.do("set /3305/0/5800 4321", "set")
            assert await device.do("send 112 /3305/0/5800", "sent") == "sent CHANGED(204)"
            assert {frame.credential for frame in sink.frames} == {"meter-1"}
            assert 4321 in sink.values()
            await device.do("update", "updated")
        async with leshan("Device", url=url, name="meter-1", identity="meter-1", key="ff" * 16) as stranger:
            await stranger.says("registration")
            dtls = adapter.dtls
            assert dtls is not None
            await until(lambda: dtls.counts["failed"] >= 1, 60, "the end of the handshake")
        assert {registration.endpoint for registration in adapter.registrations} == {"calls-itself-otherwise"}


async def test_x509(serve: Serve, sink: RecordingSink, tmp_path: Path) -> None:
    authority, foreign = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    server = authority.server()
    section = {"port": 0, "ca": authority.ca, "certificate": server.certificate, "key": server.key}
    async with serve(coap=None, coaps=section) as adapter:
        url = f"coaps://127.0.0.1:{adapter.coaps_port}"
        arguments = {"url": url, "name": "x", "serverCertificate": der(server)[0]}
        good, bad = der(authority.client("meter-509")), der(foreign.client("meter-509"))
        async with leshan("Device", **arguments, certificate=good[0], privateKey=good[1]) as device:
            await device.says("registered")
            await device.do("set /3305/0/5800 509", "set")
            assert await device.do("send 112 /3305/0/5800", "sent") == "sent CHANGED(204)"
            assert {frame.credential for frame in sink.frames} == {"meter-509"}
            assert 509 in sink.values()
            await device.do("stop", "deregistered")
        async with leshan("Device", **arguments, certificate=bad[0], privateKey=bad[1]) as device:
            await device.says("registration")
            assert len(adapter.registrations) == 0


async def test_bootstrap(serve: Serve, sink: RecordingSink, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"factory-7:{KEY}\nmeter-7:{'ab' * 16}\n")
    accounts = tmp_path / "accounts.json"
    accounts.write_text("{}")
    async with serve(coap=None, coaps={"port": 0, "psk_file": "keys"}, bootstrap_file=accounts) as adapter:
        url = f"coaps://127.0.0.1:{adapter.coaps_port}"
        account = {"uri": url, "identity": "meter-7", "key": "ab" * 16, "lifetime_s": 120}
        accounts.write_text(json.dumps({"factory-7": account}))
        arguments = {"url": url, "name": "seven", "identity": "factory-7", "key": KEY, "bootstrap": "yes"}
        async with leshan("Device", **arguments) as device:
            await device.says("bootstrapped")
            await device.says("registered")
            assert await device.do("send 112 /3305/0/5800", "sent") == "sent CHANGED(204)"
        assert {frame.credential for frame in sink.frames} == {"meter-7"}
        assert the_device(adapter).lifetime_s == 120


async def test_commands_in_queue_mode(serve: Serve, sink: RecordingSink) -> None:
    async with (
        serve(observe=(), commands={"rated_w": 10_000}, awake_s=1.0) as adapter,
        leshan("Device", **plain(adapter), queue="true") as device,
    ):
        await device.says("registered")
        assert the_device(adapter).queue
        await asyncio.sleep(1.2)  # it sleeps, as far as the server may count on
        told: list[CommandUpdate] = []

        async def on_update(update: CommandUpdate) -> None:
            told.append(update)

        parameters = {"power_w": 4200, "from_ms": 1_700_000_000_000, "until_ms": 1_700_000_900_000}
        command = Command(
            "cmd-1", "did:x", "udp:127.0.0.21", "set_power", parameters, int(time.time() * 1000) + 300_000, "order"
        )
        executing = asyncio.create_task(adapter.execute(command, on_update))
        await asyncio.sleep(0.5)
        assert [update.state for update in told] == [CommandState.QUEUED]
        await device.do("update", "updated")
        async with asyncio.timeout(90):
            await executing
        assert [update.state for update in told][1:] == [CommandState.SENT, CommandState.ACKED]
        assert told[-1].values == {"power_w": 4200}
        assert "written /3310/0/5823 cmd-1" in device.told and "written /3310/0/5824 1700000000" in device.told
        assert "written /3310/0/5825 15" in device.told and "written /3310/0/5827 42" in device.told


@pytest.mark.parametrize(
    ("via", "name", "parameters", "written", "effect"),
    [
        ("power_control", "set_power", {"power_w": 3300}, ["/3312/0/5850 true", "/3312/0/5851 33"], {"power_w": 3300}),
        ("power_control", "set_power", {"power_w": 0}, ["/3312/0/5850 false", "/3312/0/5851 0"], {"power_w": 0}),
        ("power_control", "switch", {"on": 0}, ["/3312/0/5850 false"], {"on": 0}),
        ("load_control", "set_low_battery", {"soc_permille": 250}, ["/3411/0/5 25"], {"soc_permille": 250}),
        ("load_control", "clear_battery_shutdown", {}, ["/3411/0/7 false"], {}),
    ],
)
async def test_commands_are_read_back(
    serve: Serve, via: str, name: str, parameters: dict[str, int], written: list[str], effect: dict[str, int]
) -> None:
    async with (
        serve(observe=(), commands={"rated_w": 10_000, "via": via}) as adapter,
        leshan("Device", **plain(adapter)) as device,
    ):
        await device.says("registered")
        told: list[CommandUpdate] = []

        async def on_update(update: CommandUpdate) -> None:
            told.append(update)

        expires_at = int(time.time() * 1000) + 300_000
        command = Command("c", "did:x", "udp:127.0.0.21", name, parameters, expires_at, "order")
        await adapter.execute(command, on_update)
        assert [update.state for update in told] == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED], told
        assert told[-1].values == effect and told[-1].detail == ""  # it was read back
        for line in written:
            assert f"written {line}" in device.told
        assert adapter.must_end(command) == (via == "power_control")
        if adapter.must_end(command):
            await adapter.end(command)
            released = {"written /3312/0/5850 true"} | ({"written /3312/0/5851 100"} if name == "set_power" else set())
            await until(lambda: released <= set(device.told), 60, "its end")


async def test_goes_on_after_a_restart_of_the_server(serve: Serve, sink: RecordingSink) -> None:
    """The device is not told: its registration and its observations are still known."""
    stack = contextlib.AsyncExitStack()
    adapter = await stack.enter_async_context(serve(pmax_s=1))
    port = adapter.coap_port
    async with leshan("Device", **plain(adapter)) as device:
        await device.says("registered")
        await until(lambda: len(sink.frames) >= 4, 60, "the first values")
        known = the_device(adapter).id
        await stack.aclose()
        await device.do("set /3305/0/5800 77", "set")
        later = RecordingSink()
        async with serve(later, coap={"port": port}, pmax_s=1) as again:
            assert the_device(again).id == known
            await until(lambda: 77 in later.values(), 60, "readings after the restart")
            await device.do("update", "updated")
    assert later.faults == [] and later.dead == []
