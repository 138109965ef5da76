"""The LwM2M adapter's counterpart: a device on aiocoap, with an address of its own on the loopback network."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiocoap
import aiocoap.numbers.constants
import aiocoap.resource
import cbor2
from support.lwm2m_devices import free_ports

from flexrelay_adapters.lwm2m import make_adapter
from flexrelay_adapters.lwm2m.device import DeviceClient, Security, Tree
from flexrelay_sdk import Adapter, DeviceFacts
from flexrelay_sdk.facts import cleaned
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import Act, Behaviour, Rig

HOST, NEIGHBOUR = "127.0.77.1", "127.0.77.4"
RATED_W = 10_000
SECRET = "00112233445566778899aabbccddeeff"
SENML = 112
BASE_S = 1_700_000_000


class Impatient(aiocoap.numbers.constants.TransportTuning):
    """So that the tests need not wait as long as devices do."""

    ACK_TIMEOUT = 0.4
    MAX_RETRANSMIT = 3


def reading(number: int, padding: int = 0, at_s: int | None = None) -> bytes:
    at_s = BASE_S + number if at_s is None else at_s
    pack: list[dict[int, Any]] = [{-3: at_s, 0: "/3305/0/5800", 2: number}]
    if padding:
        pack.append({0: "/3/0/0", 8: bytes(padding)})
    return cbor2.dumps(pack)


class LoadControl(aiocoap.resource.Resource):
    """Object 3310, instance 0."""

    def __init__(self, rig: Lwm2mRig) -> None:
        super().__init__()
        self._rig = rig
        self.values: dict[str, Any] = {"5823": "", "5824": 0, "5825": 0, "5827": 0}

    async def render_post(self, request: aiocoap.Message) -> aiocoap.Message:
        behaviour = self._rig.behaviour
        if behaviour == "silent" or self._rig.asleep:
            await asyncio.sleep(600)
        if behaviour == "refuse":
            return aiocoap.Message(code=aiocoap.METHOD_NOT_ALLOWED)
        for item in cbor2.loads(request.payload):
            self.values[item[0].rpartition("/")[2]] = item.get(2, item.get(3))
        self._rig.done(self.values)
        return aiocoap.Message(code=aiocoap.CHANGED)

    async def render_get(self, request: aiocoap.Message) -> aiocoap.Message:
        pack = [
            {0: f"/3310/0/{name}", (3 if isinstance(value, str) else 2): value} for name, value in self.values.items()
        ]
        return aiocoap.Message(code=aiocoap.CONTENT, payload=cbor2.dumps(pack), content_format=SENML)


class Nameplate(aiocoap.resource.Resource):
    """Instance 0 of the device object, as SenML; without anything to say it is not there."""

    def __init__(self, rig: Lwm2mRig) -> None:
        super().__init__()
        self._rig = rig

    async def render_get(self, request: aiocoap.Message) -> aiocoap.Message:
        if not self._rig.about:
            return aiocoap.Message(code=aiocoap.NOT_FOUND)
        pack = [
            {0: f"/3/0/{number}", (3 if isinstance(value, str) else 2): value}
            for number, value in self._rig.about.items()
        ]
        return aiocoap.Message(code=aiocoap.CONTENT, payload=cbor2.dumps(pack), content_format=SENML)


class CurrentTime(aiocoap.resource.Resource):
    """Resource 13 of the device object: whole seconds, as SenML."""

    def __init__(self, rig: Lwm2mRig) -> None:
        super().__init__()
        self._rig = rig

    async def render_get(self, request: aiocoap.Message) -> aiocoap.Message:
        await self._there()
        pack = [{0: "/3/0/13", 2: (time.time_ns() // 1_000_000 + self._rig.ahead_ms) // 1000}]
        return aiocoap.Message(code=aiocoap.CONTENT, payload=cbor2.dumps(pack), content_format=SENML)

    async def render_put(self, request: aiocoap.Message) -> aiocoap.Message:
        await self._there()
        if self._rig.behaviour == "refuse":
            return aiocoap.Message(code=aiocoap.METHOD_NOT_ALLOWED)
        (item,) = cbor2.loads(request.payload)
        self._rig.ahead_ms = item[2] * 1000 - time.time_ns() // 1_000_000
        return aiocoap.Message(code=aiocoap.CHANGED)

    async def _there(self) -> None:
        if self._rig.asleep or self._rig.behaviour == "silent":
            await asyncio.sleep(600)


class Lwm2mRig(Rig):
    credential = f"udp:{HOST}"
    secret = SECRET
    memory_bound_bytes = 6 * 2**20
    flood_bytes = 12 * 2**20

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._secure_port, self._device_port = free_ports(3)
        (folder / "keys").write_text(f"meter-1:{SECRET}\n")
        self.behaviour: Behaviour = "obey"
        self.asleep = False
        self._acts: dict[str, Act] = {}
        self._acknowledged: set[int] = set()
        self._queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._context: aiocoap.Context | None = None
        self._location = ""
        self._neighbour: DeviceClient | None = None
        self.ahead_ms = 0
        self.about: dict[int, str | int] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator[Rig]:
        rig = cls(folder)
        site = aiocoap.resource.Site()
        site.add_resource(["3310", "0"], LoadControl(rig))
        site.add_resource(["3", "0"], Nameplate(rig))
        site.add_resource(["3", "0", "13"], CurrentTime(rig))
        rig._context = await aiocoap.Context.create_server_context(
            site, bind=(f"::ffff:{HOST}", rig._device_port), transports=["udp6"]
        )
        tasks = [asyncio.create_task(rig._deliver()), asyncio.create_task(rig._stay_registered())]
        try:
            yield rig
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await rig._context.shutdown()
            if rig._neighbour is not None:
                rig._neighbour.close(say=False)

    def adapter(self) -> Adapter:
        return self._adapter()

    def bounded_adapter(self) -> Adapter:
        bounds = {"max_pending": 200, "max_pending_bytes": 2**17, "reply_cache": 1000, "reply_cache_bytes": 2**18}
        return self._adapter(**bounds, rate=100_000, burst=100_000, batch=100)

    def _adapter(self, **changes: Any) -> Adapter:
        section: dict[str, Any] = {
            "coap": {"port": self._port, "allow": ["127.0.77.0/24"]},
            "coaps": {"port": self._secure_port, "psk_file": "keys"},
            "observe": (),
            "commands": {"rated_w": RATED_W},
            "awake_s": 0.3,
            "ack_timeout_s": 0.4,
            "backoff_s": 0.05,
            "refused_for_s": 0.2,
            **changes,
        }
        return make_adapter("field", section, self._folder, NoNativeCodec())

    async def send(self, number: int) -> None:
        self._queue.put_nowait((number, reading(number)))

    async def send_at(self, number: int, at_ms: int) -> None:
        self._queue.put_nowait((number, reading(number, at_s=at_ms // 1000)))

    def acknowledged(self) -> set[int]:
        return set(self._acknowledged)

    async def flood(self, total_bytes: int) -> int:
        size = 1000
        count = total_bytes // size
        await self._registered()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((HOST, 0))
            sock.setblocking(False)
            await _flood(sock, ("127.0.0.1", self._port), count, size)
        return count

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        return [
            (b"", "not_cbor"),
            (reading(1)[:-3], "not_cbor"),
            (cbor2.dumps([{0: "/3305/0/5800", 2: float("nan")}]), "not_a_number"),
            (cbor2.dumps([{0: "/3/0/1", 3: "text"}]), "no_measurement"),
            (cbor2.dumps([{0: "/3305/0/5800", 2: 1e300}]), "out_of_range"),
            (cbor2.dumps({"what": "is this"}), "not_senml"),
            (reading(1, 70_000), ""),  # larger than what is taken: 4.13, before it is whole
        ]

    async def send_raw(self, payload: bytes) -> None:
        await self._registered()
        with suppress(aiocoap.error.Error):
            await self._ask(aiocoap.POST, "dp", payload, SENML)

    async def intrude(self, adapter: Adapter) -> None:
        stranger = DeviceClient(
            ("127.0.0.1", self._secure_port),
            "meter-1",
            Tree({}),
            security=Security(identity="meter-1", key=b"not the device's key"),
            local="127.0.77.2",
        )
        try:
            await stranger.open()
        except ConnectionError:
            return
        finally:
            stranger.close(say=False)
        raise AssertionError("a session with a wrong key")

    async def behave(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour

    def acts(self) -> Sequence[Act]:
        return list(self._acts.values())

    async def sleep(self) -> None:
        """In queue mode, and longer silent than the server counts on it to listen."""
        await self._registered()
        self.asleep = True
        await self._register("&Q")
        await asyncio.sleep(0.5)

    async def appear(self) -> str:
        """Another device, with an address of its own."""
        tree = Tree({(1, 0, 0): 1, (3305, 0, 5800): 1.0})
        self._neighbour = DeviceClient(("127.0.0.1", self._port), "other", tree, local=NEIGHBOUR)
        await self._neighbour.open()
        await self._neighbour.register()
        return f"udp:{NEIGHBOUR}"

    async def introduce(self, facts: DeviceFacts) -> DeviceFacts:
        texts = {0: facts.manufacturer, 1: facts.model, 2: facts.serial, 3: facts.firmware}
        self.about = {**texts, 9: (facts.battery_permille or 0) // 10}
        return cleaned(facts)

    async def set_clock(self, ahead_ms: int) -> None:
        self.ahead_ms = ahead_ms

    def clock_ahead_ms(self) -> int:
        return self.ahead_ms

    async def wake(self) -> None:
        self.asleep = False
        answer = await self._ask(aiocoap.POST, self._location, b"")
        if answer.code is aiocoap.NOT_FOUND:  # the server was started again
            self._location = ""

    def done(self, values: dict[str, Any]) -> None:
        """A write: the event's identifier says which command it is."""
        from_ms = int(values["5824"]) * 1000
        parameters = {
            "power_w": int(values["5827"]) * RATED_W // 100,
            "from_ms": from_ms,
            "until_ms": from_ms + int(values["5825"]) * 60_000,
        }
        self._acts[values["5823"]] = ("set_power", parameters)

    async def _deliver(self) -> None:
        """One reading after the other (NSTART is 1), again until it is answered."""
        while True:
            number, payload = await self._queue.get()
            while True:
                await self._registered()
                try:
                    answer = await self._ask(aiocoap.POST, "dp", payload, SENML)
                except aiocoap.error.Error:
                    await asyncio.sleep(0.1)
                    continue
                if answer.code is aiocoap.CHANGED:
                    self._acknowledged.add(number)
                    break
                if answer.code is aiocoap.BAD_REQUEST:
                    break
                if answer.code is aiocoap.NOT_FOUND:
                    self._location = ""
                await asyncio.sleep(0.05)

    async def _stay_registered(self) -> None:
        while True:
            if not self._location:
                with suppress(aiocoap.error.Error):
                    await self._register("")
            await asyncio.sleep(0.05)

    async def _register(self, more: str) -> None:
        query = f"rd?ep=meter&lt=300&lwm2m=1.1&b=U{more}"
        answer = await self._ask(aiocoap.POST, query, b"</1/0>,</3/0>,</3305/0>,</3310/0>", 40)
        if answer.code is aiocoap.CREATED:
            self._location = "/".join(answer.opt.location_path)

    async def _registered(self) -> None:
        while not self._location:  # noqa: ASYNC110  # it is another task's state
            await asyncio.sleep(0.01)

    async def _ask(self, code: Any, path: str, payload: bytes, content_format: int | None = None) -> aiocoap.Message:
        assert self._context is not None
        message = aiocoap.Message(
            code=code, uri=f"coap://127.0.0.1:{self._port}/{path}", payload=payload, transport_tuning=Impatient()
        )
        if content_format is not None:
            message.opt.content_format = content_format
        return await self._context.request(message).response


async def _flood(sock: socket.socket, server: tuple[str, int], count: int, size: int) -> None:
    """Confirmable messages, 64 under way, each again after a second without an answer."""
    loop = asyncio.get_running_loop()
    under_way: dict[int, tuple[float, bytes]] = {}
    following = 0
    while following < count or under_way:
        while following < count and len(under_way) < 64:
            mid = following & 0xFFFF
            head = bytes((0x41, 0x02, mid >> 8, mid & 255)) + b"f\xb2dp\x11\x70\xff"
            under_way[mid] = (time.monotonic(), head + reading(following, size - 60))
            sock.sendto(under_way[mid][1], server)
            following += 1
        try:
            async with asyncio.timeout(0.2):
                answer = await loop.sock_recv(sock, 100)
                while True:
                    if answer[1] == 0x44:
                        under_way.pop(answer[2] << 8 | answer[3], None)
                    try:
                        answer = sock.recv(100)
                    except BlockingIOError:
                        break
        except TimeoutError:
            pass
        now = time.monotonic()
        for mid, (at, data) in under_way.items():
            if now - at > 1:
                under_way[mid] = (now, data)
                with suppress(BlockingIOError):
                    sock.sendto(data, server)
