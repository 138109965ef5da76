"""Devices and an operator of an IoT Agent over HTTP, on httpx, against the adapter with its own servers."""

from __future__ import annotations

import asyncio
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.certificates import Authority

from flexrelay_adapters import fiware_json, ultralight
from flexrelay_adapters.iotagent import IotAgentAdapter
from flexrelay_sdk import Command, CommandUpdate
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running, until

KEY, TOKEN = "4jggokgpepnvsb2uv4s40d59ov", "a token of the operator"
SCOPE = {"Fiware-Service": "smartgondor", "Fiware-ServicePath": "/gardens", "Authorization": f"Bearer {TOKEN}"}
CODEC = {
    "registers": {
        "power_w": {"pointer": "/power", "unit": "W", "required": False},
        "import_j": {"pointer": "/energy", "unit": "Wh", "required": False},
    }
}


class Site:
    """An adapter that runs, and clients of its two servers."""

    def __init__(
        self, adapter: IotAgentAdapter, sink: RecordingSink, devices: httpx.AsyncClient, operator: httpx.AsyncClient
    ) -> None:
        self.adapter = adapter
        self.sink = sink
        self.devices = devices
        self.operator = operator

    async def post(self, path: str, body: Any, **query: str) -> httpx.Response:
        return await self.operator.post(path, json=body, params=query)

    async def measure(self, payload: bytes | str, device: str = "m1", path: str = "", **query: str) -> httpx.Response:
        where = self.adapter.dialect.path + path
        return await self.devices.post(where, content=payload, params={"k": KEY, "i": device, **query})


@asynccontextmanager
async def site(folder: Path, make: Any = ultralight.make_adapter, **section: Any) -> AsyncIterator[Site]:
    whole: Mapping[str, Any] = {
        "http": {"port": 0},
        "provisioning": {"port": 0, "token": TOKEN},
        "state": "provisioned",
        "apikeys": [KEY],
        "codec": CODEC,
        "commands": {"set_power": {"name": "setPower", "value": {"parameter": "power_w", "unit": "kW"}}, "switch": {}},
        **section,
    }
    adapter, sink = make("farm", whole, folder, NoNativeCodec()), RecordingSink()
    async with running(adapter, sink):
        devices = f"http://127.0.0.1:{adapter.ports['http']}"
        operator = f"http://127.0.0.1:{adapter.ports['provisioning']}"
        async with (
            httpx.AsyncClient(base_url=devices, trust_env=False, timeout=60) as one,
            httpx.AsyncClient(base_url=operator, headers=SCOPE, trust_env=False, timeout=60) as other,
        ):
            yield Site(adapter, sink, one, other)


def command(command_id: str, name: str = "set_power", lasts_ms: int = 120_000, **parameters: int) -> Command:
    now = time.time_ns() // 1_000_000
    told = {"from_ms": now, "until_ms": now + 900_000, **(parameters or {"power_w": 1500})}
    return Command(command_id, "did:example:device", f"{KEY}/m1", name, told, now + lasts_ms, "order")


async def asked_until(done: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        for _ in itertools.count():
            if await done():
                return
            await asyncio.sleep(0.05)


async def test_every_way_of_a_measure(tmp_path: Path) -> None:
    async with site(tmp_path) as there:
        answers = [
            await there.measure("power|1#energy|2"),
            await there.measure("power|3", t="2016-06-13T00:35:30Z"),
            await there.measure("4", path="/attrs/power"),
            await there.devices.get("/iot/d", params={"k": KEY, "i": "m1", "d": "power|5"}),
        ]
        assert [answer.status_code for answer in answers] == [200] * 4 and {answer.content for answer in answers} == {
            b""
        }
        found = [(dict(m.registers), m.observed_at) for m in there.sink.measurements]
        assert [registers for registers, _ in found] == [
            {"power_w": 1}, {"import_j": 7200}, {"power_w": 3}, {"power_w": 4}, {"power_w": 5},
        ]  # fmt: skip
        assert found[2][1] == 1465778130000
        received = [at for place, (_, at) in enumerate(found) if place != 2]
        assert len(set(received)) == 4, "two readings of one device have one instant"
        assert {frame.credential for frame in there.sink.frames} == {f"{KEY}/m1"}


async def test_what_is_not_taken(tmp_path: Path) -> None:
    async with site(tmp_path, max_payload_bytes=200) as there:
        assert (await there.measure("power|abc")).status_code == 400
        assert [reason for _, reason in there.sink.dead] == ["not_a_number"]
        assert (await there.measure("power|1|x|" + "y" * 300)).status_code == 413
        assert (await there.devices.post("/iot/d", params={"i": "m1"}, content="power|1")).status_code == 400
        assert (
            await there.devices.post("/iot/d", params={"k": "other", "i": "m1"}, content="power|1")
        ).status_code == 404
        assert (await there.devices.get("/iot/d", params={"k": KEY, "i": "m1"})).status_code == 400
        assert (await there.measure("power|1", device="a/b")).status_code == 400
        assert (await there.devices.post("/iot/json", params={"k": KEY, "i": "m1"}, content="{}")).status_code == 404
        assert len(there.sink.dead) == 1 and there.sink.stored == []


async def test_a_body_that_ends_early_or_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flexrelay_adapters.iotagent.measures.BODY_S", 0.3)
    head = f"POST /iot/d?k={KEY}&i=m1 HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\npower".encode()
    async with site(tmp_path) as there:
        port = there.adapter.ports["http"]
        for hangs_up in (True, False):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head)
            await writer.drain()
            if not hangs_up:
                assert b"408" in await asyncio.wait_for(reader.readline(), 60)
            writer.close()
        await until(lambda: there.adapter.stats.refused == 2, 60, "both refusals")
        monkeypatch.undo()
        assert (await there.measure("power|1")).status_code == 200
        assert there.sink.values() == [1] and there.sink.dead == []
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_200_comes_after_the_journal_and_503_when_there_is_no_room(tmp_path: Path) -> None:
    async with site(tmp_path, http={"port": 0, "max_waiting": 2}) as there:
        there.sink.hold()
        posting = [asyncio.create_task(there.measure(f"power|{n}", device=f"m{n}")) for n in range(8)]
        await until(lambda: sum(task.done() for task in posting) >= 5)
        assert {task.result().status_code for task in posting if task.done()} == {503}
        there.sink.release()
        codes = [response.status_code for response in await asyncio.gather(*posting)]
        assert codes.count(200) == len(there.sink.stored) >= 2
        there.sink.refuse = 1
        refused = await there.measure("power|9")
        assert refused.status_code == 503 and refused.headers["retry-after"]


async def test_commands_are_fetched_once_and_answered(tmp_path: Path) -> None:
    async with site(tmp_path) as there:
        updates: list[CommandUpdate] = []

        async def note(update: CommandUpdate) -> None:
            updates.append(update)

        executing = asyncio.create_task(there.adapter.execute(command("c1"), note))
        other = asyncio.create_task(there.adapter.execute(command("c2", "switch", on=1), note))
        await until(lambda: len(updates) == 2)
        answer = await there.measure("power|1", getCmd="1")
        first, second = answer.text.split("#")
        assert first == "m1@setPower|1.5"
        assert second.startswith("m1@switch|") and "on=1" in second and "id=c2" in second
        assert (await there.measure("power|2", getCmd="1")).content == b""
        assert (await there.measure("m1@setPower|done")).status_code == 200
        assert (await there.measure("m1@switch|error: stuck", path="/commands")).status_code == 200
        await asyncio.gather(executing, other)
        states = {(each.command_id, each.state.value): each.detail for each in updates}
        assert states[("c1", "acked")] == "done" and states[("c2", "failed")] == "error: stuck"
        assert (await there.measure("m1@setPower|late")).status_code == 200
        assert there.adapter.stats.results_unknown == 1


async def test_a_single_value_comes_with_its_window_and_is_ended(tmp_path: Path) -> None:
    value = {"parameter": "power_w", "unit": "kW", "revert": 0}
    async with site(tmp_path, commands={"set_power": {"name": "setPower", "value": value}}) as there:
        updates: list[CommandUpdate] = []

        async def note(update: CommandUpdate) -> None:
            updates.append(update)

        async def polled(text: str) -> bool:
            return (await there.measure("power|1", getCmd="1")).text == text

        begins = time.time_ns() // 1_000_000 + 1_000
        window = {"power_w": 1500, "from_ms": 0, "until_ms": 100_000}
        order = replace(command("c1", lasts_ms=0, **window), expires_at=begins + 100_000)
        executing = asyncio.create_task(there.adapter.execute(order, note))
        await until(lambda: len(updates) == 1)
        await asked_until(lambda: polled("m1@setPower|1.5"))
        assert time.time_ns() // 1_000_000 >= begins - 100, "before its window"
        assert (await there.measure("m1@setPower|done")).status_code == 200
        await executing
        assert [each.state.value for each in updates] == ["queued", "sent", "acked"]
        assert there.adapter.must_end(order) and not there.adapter.must_end(command("c2", "switch", on=1))
        for patience_s in (0.05, 60.0):  # the device asks when it likes
            ending = asyncio.create_task(asyncio.wait_for(there.adapter.end(order), patience_s))
            if patience_s < 1:
                with pytest.raises(TimeoutError):
                    await ending
                assert await polled("m1@setPower|0") and await polled("")
            else:
                assert (await there.measure("m1@setPower|back")).status_code == 200
                await ending
        older = command("c0", power_w=700, from_ms=0, until_ms=100_000)
        ending = asyncio.create_task(there.adapter.end(order, older))
        await until(lambda: bool(there.adapter._pending))
        assert await polled("m1@setPower|0.7")
        assert (await there.measure("m1@setPower|error: stuck")).status_code == 200
        with pytest.raises(ValueError, match="refuses its end: error: stuck"):
            await ending
        ending = asyncio.create_task(there.adapter.end(order))
        await until(lambda: bool(there.adapter._pending))
        newer = asyncio.create_task(there.adapter.execute(command("c3", power_w=900), note))
        await until(lambda: len(updates) == 4)
        assert await polled("m1@setPower|0.9"), "a newer command takes the place of an end"
        assert (await there.measure("m1@setPower|done")).status_code == 200
        await newer
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
        assert there.adapter._pending == {}


async def test_json_commands_and_results(tmp_path: Path) -> None:
    async with site(tmp_path, fiware_json.make_adapter) as there:
        updates: list[CommandUpdate] = []

        async def note(update: CommandUpdate) -> None:
            updates.append(update)

        executing = asyncio.create_task(there.adapter.execute(command("c1"), note))
        await until(lambda: len(updates) == 1)
        assert (await there.measure('{"power": 1}', getCmd="1")).json() == {"setPower": 1.5}
        assert (await there.measure('[{"power": 2}, {"power": 3}]')).status_code == 200
        assert (await there.measure('{"setPower": "ok"}', path="/commands")).status_code == 200
        await executing
        assert updates[-1].state.value == "acked" and there.sink.values() == [1, 2, 3]


async def test_services_and_devices_as_an_iot_agent_has_them(tmp_path: Path) -> None:
    async with site(tmp_path) as there:
        service = {"apikey": "key2", "cbroker": "http://orion:1026", "entity_type": "Meter", "resource": "/iot/d"}
        assert (await there.post("/iot/services", {"services": [service]})).status_code == 201
        again = await there.post("/iot/services", {"services": [service]})
        assert (again.status_code, again.json()["name"]) == (409, "DUPLICATE_GROUP")
        listed = (await there.operator.get("/iot/services")).json()
        assert listed["count"] == 1 and listed["services"][0]["cbroker"] == "http://orion:1026"
        changed = await there.operator.put(
            "/iot/services", params={"apikey": "key2", "resource": "/iot/d"}, json={"entity_type": "Thing"}
        )
        assert changed.status_code == 204
        assert (await there.operator.get("/iot/groups")).json()["services"][0]["entity_type"] == "Thing"
        devices = [
            {
                "device_id": f"d{n}", "entity_name": f"urn:ngsi-ld:Meter:{n}", "transport": "HTTP",
                "attributes": [{"object_id": "p", "name": "power", "type": "Number"}],
            }
            for n in range(3)
        ]  # fmt: skip
        assert (await there.post("/iot/devices", {"devices": devices})).status_code == 201
        assert (await there.post("/iot/devices", {"devices": devices[:1]})).json()["name"] == "DUPLICATE_DEVICE_ID"
        page = (await there.operator.get("/iot/devices", params={"limit": "2", "offset": "1"})).json()
        assert page["count"] == 3 and [each["device_id"] for each in page["devices"]] == ["d1", "d2"]
        assert (await there.operator.get("/iot/devices/d0")).json()["apikey"] == "key2"
        assert [each async for each in there.adapter.discover()] == ["key2/d0", "key2/d1", "key2/d2"]
        sent = await there.devices.post("/iot/d", params={"k": "key2", "i": "d0"}, content="p|7")
        assert sent.status_code == 200 and there.sink.values() == [7]
        renamed = {"attributes": [{"object_id": "w", "name": "power"}]}
        assert (await there.operator.put("/iot/devices/d0", json=renamed)).status_code == 204
        await there.devices.post("/iot/d", params={"k": "key2", "i": "d0"}, content="w|8")
        assert there.sink.values() == [7, 8]
        codec = there.adapter.codec_for("/iot/d")
        assert codec is not None
        assert [codec.decode(frame).measurements[0].registers for frame in there.sink.frames] == [
            {"power_w": 7}, {"power_w": 8},
        ], "a frame decodes as when it came"  # fmt: skip
        assert (await there.operator.delete("/iot/devices/d0")).status_code == 204
        assert (await there.operator.get("/iot/devices/d0")).json()["name"] == "DEVICE_NOT_FOUND"
        query = {"apikey": "key2", "resource": "/iot/d"}
        assert (await there.operator.delete("/iot/services", params=query)).status_code == 204
        assert (await there.operator.delete("/iot/services", params=query)).status_code == 404


async def test_two_devices_of_one_id_are_told_apart_by_their_key(tmp_path: Path) -> None:
    async with site(tmp_path) as there:
        devices = [{"device_id": "d", "apikey": key} for key in ("key1", "key2")]
        assert (await there.post("/iot/devices", {"devices": devices})).status_code == 201
        change = {"entity_name": "second", "service": "other"}
        changed = await there.operator.put("/iot/devices/d", params={"apikey": "key2"}, json=change)
        assert changed.status_code == 204
        one, two = (await there.operator.get("/iot/devices")).json()["devices"]
        assert "entity_name" not in one and (two["entity_name"], two["service"]) == ("second", "smartgondor")
        absent = await there.operator.put("/iot/devices/d", params={"apikey": "key3"}, json=change)
        assert absent.status_code == 404


async def test_what_was_provisioned_survives_a_restart(tmp_path: Path) -> None:
    device = {"device_id": "d1", "apikey": "key3", "attributes": [{"object_id": "p", "name": "power"}]}
    async with site(tmp_path) as there:
        assert (await there.post("/iot/devices", {"devices": [device]})).status_code == 201
    async with site(tmp_path) as there:
        assert [each async for each in there.adapter.discover()] == ["key3/d1"]
        sent = await there.devices.post("/iot/d", params={"k": "key3", "i": "d1"}, content="p|7")
        assert sent.status_code == 200 and there.sink.values() == [7]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Fiware-Service": ""}, 400),
        ({"Authorization": "", "X-Auth-Token": TOKEN}, 200),
    ],
)
async def test_who_may_provision(tmp_path: Path, headers: dict[str, str], status: int) -> None:
    async with site(tmp_path) as there:
        answer = await there.operator.get("/iot/devices", headers=headers)
        assert answer.status_code == status
        assert (await there.operator.post("/iot/devices", headers=headers, json={})).status_code in (status, 400)


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"{}", b'{"devices": []}', b'{"devices": [{}]}',
        b'{"devices": [{"device_id": "a/b", "apikey": "k"}]}',
        b'{"devices": [{"device_id": "a", "apikey": "k k"}]}', b'{"devices": [{"device_id": "a"}]}', b"[" * 100_000,
        b'{"devices": [{"device_id": "a", "apikey": "k", "attributes": [{"object_id": "p"}]}]}',
        b'{"devices": [{"device_id": "a", "apikey": "k", "lazy": [NaN]}]}',
        b'{"devices": [{"device_id": "a", "apikey": "k", "lazy": [1e999]}]}',
        b'{"devices": [{"device_id": "a", "apikey": "k", "lazy": ["\\ud800"]}]}',
    ],
)  # fmt: skip
async def test_a_wrong_body_is_told_and_nothing_is_kept(tmp_path: Path, body: bytes) -> None:
    async with site(tmp_path) as there:
        answer = await there.operator.post("/iot/devices", content=body)
        assert (answer.status_code, answer.json()["name"]) == (400, "WRONG_SYNTAX")
        assert [each async for each in there.adapter.discover()] == []


async def test_one_bad_device_does_not_disturb_the_others(tmp_path: Path) -> None:
    async with site(tmp_path) as there:
        bad = ("", "power", "power|1|power|2", "\x01\x00", "#" * 5000, "power|nan")

        async def hostile(number: int) -> None:
            for payload in bad:
                assert (await there.measure(payload, device=f"bad{number}")).status_code == 400

        async def good(number: int) -> None:
            assert (await there.measure(f"power|{number}", device=f"good{number}")).status_code == 200

        await asyncio.gather(*map(good, range(100)), *map(hostile, range(10)))
        assert sorted(there.sink.values()) == list(range(100)) and len(there.sink.dead) == 60
        assert there.sink.faults == []


async def test_tls_and_certificates_of_devices(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    server, client = authority.server(), authority.client("m1")
    tls = {"certificate": str(server.certificate), "key": str(server.key), "ca": str(authority.ca)}
    async with site(tmp_path, http={"port": 0, "tls": tls}) as there:
        url = f"https://127.0.0.1:{there.adapter.ports['http']}/iot/d"
        context = ssl.create_default_context(cafile=str(authority.ca))
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=60) as stranger:
            with pytest.raises(httpx.HTTPError):
                await stranger.post(url, params={"k": KEY, "i": "m1"}, content="power|1")
        context.load_cert_chain(client.certificate, client.key)
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=60) as known:
            answer = await known.post(url, params={"k": KEY, "i": "m1"}, content="power|2")
        assert answer.status_code == 200 and there.sink.values() == [2]


def test_a_server_beyond_loopback_needs_tls() -> None:
    section = {"http": {"host": "0.0.0.0", "port": 1}, "codec": CODEC}
    with pytest.raises(ValueError, match=r"^http: .*beyond loopback"):
        ultralight.make_adapter("farm", section, Path(), NoNativeCodec())
