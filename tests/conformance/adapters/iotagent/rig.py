"""Counterparts of the adapters for IoT Agents' devices: Mosquitto and a device on aiomqtt, or a device on httpx."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import aiomqtt
import httpx
from support.mqtt_device import MqttDevice, recorded
from support.mqtt_proxy import AckRecorder
from support.opcua_publisher import iso

from flexrelay.demo.broker import Account, Mosquitto
from flexrelay_adapters import fiware_json, ultralight
from flexrelay_adapters.iotagent import IotAgentAdapter
from flexrelay_sdk.port import Adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import Act, Behaviour, Rig

KEY, DEVICE, PASSWORD, SECRET = "4jggokgpepnvsb2uv4s40d59ov", "meter1", "secret-1", "secret-of-the-gateway"
OPERATOR, SCOPE = "token-of-the-operator", {"fiware-service": "farm", "fiware-servicepath": "/"}
CODEC = {"registers": {"power_w": {"pointer": "/p", "unit": "W"}}}


class Speech:
    """What a device of one dialect says; nothing of the adapter's own code."""

    level: ClassVar[str]
    path: ClassVar[str]

    def measure(self, number: int, padding: str = "") -> bytes:
        raise NotImplementedError

    def measure_at(self, number: int, at_ms: int) -> bytes:
        raise NotImplementedError

    def number(self, payload: bytes) -> int | None:
        raise NotImplementedError

    def commands(self, payload: bytes) -> list[tuple[str, dict[str, Any]]]:
        raise NotImplementedError

    def result(self, name: str, text: str) -> bytes:
        raise NotImplementedError

    bad: ClassVar[Sequence[tuple[bytes, str]]]


class UltralightSpeech(Speech):
    level, path = "ul", "/iot/d"
    bad: ClassVar[Sequence[tuple[bytes, str]]] = [
        (b"", "not_ultralight"),
        (b"\xff\xfe", "not_utf8"),
        (b"p", "not_ultralight"),
        (b"p|", "not_a_number"),
        (b"p|abc", "not_a_number"),
        (b"q|1", "missing_field"),
        (b"p|1|p|2", "duplicate_name"),
        (b"p|1e99", "out_of_range"),
        (b"yesterday|p|12", "bad_time"),
        (b"\x01\x00\xffp|1", "not_utf8"),
        (b"p|1|x|" + b"x" * 70_000, "oversized"),
    ]

    def measure(self, number: int, padding: str = "") -> bytes:
        return f"p|{number}|x|{padding}".encode() if padding else f"p|{number}".encode()

    def measure_at(self, number: int, at_ms: int) -> bytes:
        return f"{iso(at_ms)}|p|{number}".encode()

    def number(self, payload: bytes) -> int | None:
        _, found, rest = f"|{payload.decode(errors='replace')}".partition("|p|")
        digits = rest.split("|")[0]
        return int(digits) if found and digits.isdigit() else None

    def commands(self, payload: bytes) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for each in payload.decode().split("#") if payload else []:
            head, *fields = each.split("|")
            found.append((head.split("@")[1], dict(field.split("=") for field in fields)))
        return found

    def result(self, name: str, text: str) -> bytes:
        return f"{DEVICE}@{name}|{text}".encode()


class JsonSpeech(Speech):
    level, path = "json", "/iot/json"
    bad: ClassVar[Sequence[tuple[bytes, str]]] = [
        (b"", "not_json"),
        (b"\xff\xfe", "not_utf8"),
        (b'{"p": 1', "not_json"),
        (b'{"p": NaN}', "not_a_number"),
        (b'{"p": "12"}', "not_a_number"),
        (b'{"q": 1}', "missing_field"),
        (b'{"p": 1, "p": 2}', "duplicate_name"),
        (b"[]", "bad_items"),
        (b"[1, 2]", "bad_items"),
        (b'{"p": 1e99}', "out_of_range"),
        (b'{"p": 1, "TimeInstant": "yesterday"}', "bad_time"),
        (b'{"p": 1,"x":"' + b"x" * 70_000 + b'"}', "oversized"),
    ]

    def measure(self, number: int, padding: str = "") -> bytes:
        return json.dumps({"p": number, "x": padding} if padding else {"p": number}).encode()

    def measure_at(self, number: int, at_ms: int) -> bytes:
        return json.dumps({"p": number, "TimeInstant": iso(at_ms)}).encode()

    def number(self, payload: bytes) -> int | None:
        try:
            value = json.loads(payload)["p"]
        except (ValueError, KeyError, TypeError):
            return None
        return value if type(value) is int else None

    def commands(self, payload: bytes) -> list[tuple[str, dict[str, Any]]]:
        return list(json.loads(payload or b"{}").items())

    def result(self, name: str, text: str) -> bytes:
        return json.dumps({name: text}).encode()


MAKERS = {"ul": ultralight.make_adapter, "json": fiware_json.make_adapter}


class DeviceRig(Rig):
    """What both transports share: a device that acts once on a command and answers again."""

    credential = f"{KEY}/{DEVICE}"
    secret = SECRET

    def __init__(self, speech: Speech) -> None:
        self.speech = speech
        self._behaviour: Behaviour = "obey"
        self._acts: list[Act] = []
        self._answers: dict[str, bytes] = {}

    def made(self, section: Mapping[str, Any]) -> IotAgentAdapter:
        return MAKERS[self.speech.level](
            "farm", {"codec": CODEC, "commands": {"set_power": {}}, **section}, Path(), NoNativeCodec()
        )

    async def flood(self, total_bytes: int) -> int:
        padding = "x" * 20_000
        count = total_bytes // len(padding)
        for number in range(count):
            await self.send_raw(self.speech.measure(number, padding))
        return count

    async def send(self, number: int) -> None:
        await self.send_raw(self.speech.measure(number))

    async def send_at(self, number: int, at_ms: int) -> None:
        await self.send_raw(self.speech.measure_at(number, at_ms))

    async def behave(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def acts(self) -> Sequence[Act]:
        return self._acts

    def answer(self, name: str, told: Mapping[str, Any]) -> bytes | None:
        if self._behaviour == "silent" or time.time_ns() // 1_000_000 >= int(told["expires_at"]):
            return None
        if told["id"] not in self._answers:
            obeys = self._behaviour == "obey"
            if obeys:
                self._acts.append((name, {key: int(told[key]) for key in ("power_w", "from_ms", "until_ms")}))
            self._answers[told["id"]] = self.speech.result(name, "ok" if obeys else "error: will not")
        return self._answers[told["id"]]


class MqttDeviceRig(MqttDevice, DeviceRig):
    user, password, hears_on = DEVICE, PASSWORD, f"/{KEY}/{DEVICE}/cmd"

    def __init__(self, speech: Speech, broker: Mosquitto, recorder: AckRecorder, protocol: str) -> None:
        MqttDevice.__init__(self, broker)
        DeviceRig.__init__(self, speech)
        self._recorder = recorder
        self._protocol = protocol
        self._head = f"/{speech.level}/{KEY}/{DEVICE}"
        self._state = Path()
        self._adapter: IotAgentAdapter | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, speech: Speech, protocol: str = "5") -> AsyncIterator[MqttDeviceRig]:
        accounts = (
            Account(DEVICE, PASSWORD, read=(f"/{KEY}/{DEVICE}/cmd",), write=(f"/{speech.level}/{KEY}/{DEVICE}/#",)),
            Account("gateway", SECRET, read=(f"/{speech.level}/#",), write=("/+/+/cmd",)),
        )
        async with recorded(folder, accounts, protocol, partial(cls, speech, protocol=protocol)) as rig:
            rig._state = folder / "provisioned"
            yield rig

    def adapter(self, **changes: Any) -> Adapter:
        most = {"max_payload_bytes": changes.pop("max_payload_bytes")} if "max_payload_bytes" in changes else {}
        mqtt = {
            "host": "127.0.0.1",
            "port": self._recorder.port,
            "protocol": self._protocol,
            "client_id": "gw",
            "username": "gateway",
            "password": SECRET,
            "backoff_min_s": 0.05,
            "backoff_max_s": 0.4,
            **changes,
        }
        provisioning = {"provisioning": {"port": 0, "token": OPERATOR}, "state": str(self._state)}
        self._adapter = self.made({"mqtt": mqtt, **provisioning, **most})
        return self._adapter

    async def appear(self) -> str:
        """Provisioned, as an operator does it."""
        assert self._adapter is not None
        url = f"http://127.0.0.1:{self._adapter.ports['provisioning']}/iot/devices"
        device = {"device_id": "meter2", "apikey": KEY}
        async with httpx.AsyncClient(
            headers={**SCOPE, "X-Auth-Token": OPERATOR}, trust_env=False, timeout=60
        ) as operator:
            response = await operator.post(url, json={"devices": [device]})
        assert response.status_code == 201, response.text
        return f"{KEY}/meter2"

    def bounded_adapter(self) -> Adapter:
        return self.adapter(max_pending=100, max_pending_bytes=2**18, max_payload_bytes=2**16)

    def adapter_with_wrong_credentials(self) -> Adapter:
        return self.adapter(password=SECRET + "-mistyped")

    async def send_raw(self, payload: bytes) -> None:
        await self.tell(f"{self._head}/attrs", payload)

    def acknowledged(self) -> set[int]:
        found = {self.speech.number(payload) for payload in self._recorder.acknowledged}
        assert self._recorder.foreign == 0, "acknowledged what was not delivered"
        return {number for number in found if number is not None}

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        return self.speech.bad

    async def hear(self, payload: bytes, client: aiomqtt.Client) -> None:
        for name, told in self.speech.commands(payload):
            answer = self.answer(name, told)
            if answer is not None:
                await client.publish(f"{self._head}/cmdexe", answer, qos=1)


class HttpDeviceRig(DeviceRig):
    """The device posts in order, again where it is told to, and asks for commands while it is awake."""

    secret = ""  # httpx logs what it asks for
    memory_bound_bytes = 24 * 2**20  # what a device has not got rid of waits in the device, in this process
    flood_bytes = 64 * 2**20

    def __init__(self, speech: Speech) -> None:
        super().__init__(speech)
        self._adapter: IotAgentAdapter | None = None
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=200)
        self._acknowledged: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._awake = asyncio.Event()
        self._polling = asyncio.Lock()
        self._client = httpx.AsyncClient(timeout=60, trust_env=False)

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, speech: Speech) -> AsyncIterator[HttpDeviceRig]:
        rig = cls(speech)
        rig._awake.set()
        rig._tasks = [asyncio.create_task(rig._post()), asyncio.create_task(rig._poll())]
        try:
            yield rig
        finally:
            for task in rig._tasks:
                task.cancel()
            await asyncio.gather(*rig._tasks, return_exceptions=True)
            await rig._client.aclose()

    def adapter(self, **changes: Any) -> Adapter:
        self._adapter = self.made({"http": {"port": 0, **changes}, "apikeys": [KEY]})
        return self._adapter

    def bounded_adapter(self) -> Adapter:
        return self.adapter(max_waiting=50)

    async def send_raw(self, payload: bytes) -> None:
        await self._queue.put(payload)

    def acknowledged(self) -> set[int]:
        return set(self._acknowledged)

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        return [(payload, "" if reason == "oversized" else reason) for payload, reason in self.speech.bad]

    async def intrude(self, adapter: Adapter) -> None:
        port = self._port()
        url = f"http://127.0.0.1:{port}{self.speech.path}?k=somebody-elses&i={DEVICE}"
        response = await self._client.post(url, content=self.speech.measure(99))
        assert response.status_code == 404 and response.json()["name"] == "GROUP_NOT_FOUND"

    async def sleep(self) -> None:
        self._awake.clear()
        async with self._polling:
            pass

    async def wake(self) -> None:
        self._awake.set()

    def _port(self) -> int:
        return self._adapter.ports.get("http", 0) if self._adapter is not None else 0

    def _url(self, more: str = "") -> str:
        return f"http://127.0.0.1:{self._port()}{self.speech.path}?k={KEY}&i={DEVICE}{more}"

    async def _post(self) -> None:
        while True:
            payload = await self._queue.get()
            while True:
                try:
                    response = await self._client.post(self._url(), content=payload) if self._port() else None
                except httpx.HTTPError:
                    response = None
                if response is not None and response.status_code < 500:
                    break
                await asyncio.sleep(0.02)
            number = self.speech.number(payload)
            if response.status_code == 200 and number is not None:
                self._acknowledged.add(number)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            await self._awake.wait()
            if not self._port():
                continue
            async with self._polling:
                try:
                    await self._ask()
                except httpx.HTTPError:
                    continue

    async def _ask(self) -> None:
        response = await self._client.get(self._url("&getCmd=1"))
        for name, told in self.speech.commands(response.content) if response.status_code == 200 else []:
            answer = self.answer(name, told)
            if answer is not None:
                await self._client.post(self._url().replace("?", "/commands?"), content=answer)
