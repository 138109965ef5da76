"""An Acme hub, as the tests hold it: it keeps readings until they are acknowledged; its device does as it is told."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from flexrelay_acme_hub import AcmeHubAdapter, make_adapter

from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.facts import cleaned
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import Act, Behaviour, Rig

TOKEN = "open-sesame-of-the-hub"
PIECE = "x" * 20_000


class HubRig(Rig):
    credential = "meter-1"
    secret = TOKEN

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._kept: dict[int, bytes | int] = {}
        """Line number → payload that is not acknowledged yet; a reading of the flood is made of its number."""
        self._lines = 0
        self._numbers: dict[int, int] = {}
        self._acknowledged: set[int] = set()
        self._commands: dict[str, tuple[float, str, dict[str, int]]] = {}
        """Command → when it ends, name, parameters; kept while the device sleeps."""
        self._answers: dict[str, str] = {}
        self._acts: list[Act] = []
        self._behaviour: Behaviour = "obey"
        self._asleep = False
        self._devices = {self.credential}
        self._history: list[tuple[int, bytes]] = []
        self._ahead_ms = 0
        self._about = b""

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator["HubRig"]:
        rig = cls()
        await rig._listen()
        try:
            yield rig
        finally:
            await rig._gone()

    def adapter(self, **changes: Any) -> AcmeHubAdapter:
        section: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": self.port,
            "token": TOKEN,
            "codec": {
                "observed_at": {"pointer": "/t", "form": "ms", "required": False},
                "registers": {"power_w": {"pointer": "/p", "unit": "W"}},
            },
            "retry_s": 0.1,
            **changes,
        }
        return make_adapter("roof", section, Path(), NoNativeCodec())

    def adapter_with_wrong_credentials(self) -> AcmeHubAdapter:
        return self.adapter(token=TOKEN + "?")

    async def send(self, number: int) -> None:
        self._numbers[self._lines] = number
        await self.send_raw(b'{"p": %d}' % number)

    async def send_raw(self, payload: bytes) -> None:
        self._hand_over(payload)

    def _hand_over(self, payload: bytes | int) -> None:
        line = self._lines
        self._lines += 1
        self._kept[line] = payload
        for writer in self._writers:
            writer.write(self._line(line))

    async def flood(self, total_bytes: int) -> int:
        count = total_bytes // len(PIECE)
        for number in range(count):
            while not self._writers:
                await asyncio.sleep(0.01)
            self._numbers[self._lines] = number
            self._hand_over(number)
            for writer in list(self._writers):
                try:
                    await writer.drain()
                except OSError:
                    continue
        return count

    def _line(self, line: int) -> bytes:
        kept = self._kept[line]
        payload = json.dumps({"p": kept, "x": PIECE}).encode() if isinstance(kept, int) else kept
        return b"READING %d %s %s\n" % (line, self.credential.encode(), payload)

    def acknowledged(self) -> set[int]:
        return {self._numbers[line] for line in self._acknowledged if line in self._numbers}

    def bad_frames(self) -> Sequence[tuple[bytes, str]]:
        return [
            (b"", "not_json"),
            (b"\xff", "not_utf8"),
            (b'{"p": 1', "not_json"),
            (b'{"p": "1"}', "not_a_number"),
            (b"{}", "missing_field"),
            (b'{"p": 1, "x": "' + b"x" * 70_000 + b'"}', "oversized"),
        ]

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        await self._gone()
        try:
            yield
        finally:
            await self._listen()

    async def behave(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def acts(self) -> Sequence[Act]:
        return self._acts

    async def sleep(self) -> None:
        self._asleep = True

    async def wake(self) -> None:
        self._asleep = False
        for command_id in list(self._commands):
            self._do(command_id)

    async def appear(self) -> str:
        self._devices.add("meter-9")
        return "meter-9"

    async def keep(self, readings: Mapping[int, int]) -> None:
        self._history += [(at, b'{"p": %d, "t": %d}' % (number, at)) for number, at in readings.items()]

    async def introduce(self, facts: DeviceFacts) -> DeviceFacts:
        percent = None if facts.battery_permille is None else facts.battery_permille // 10
        texts = {"maker": facts.manufacturer, "model": facts.model, "serial": facts.serial, "firmware": facts.firmware}
        about = json.dumps({**texts, "battery": percent})
        self._about = f"ABOUT {self.credential} {about}\n".encode()
        return cleaned(facts)

    async def set_clock(self, ahead_ms: int) -> None:
        self._ahead_ms = ahead_ms

    def clock_ahead_ms(self) -> int:
        return self._ahead_ms

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _gone(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.02)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            greeting = (await reader.readline()).decode().split()
            if greeting not in (["HELLO", TOKEN], ["ASK", TOKEN]):
                writer.write(b"DENIED\n")
                return
            writer.write(b"WELCOME\n")
            if greeting[0] == "ASK":
                for line in self._answer((await reader.readline()).decode().split()):
                    writer.write(line)
                    await writer.drain()
                writer.write(b"END\n")
                return
            writer.write(self._about)
            for line in sorted(self._kept):
                writer.write(self._line(line))
            self._writers.add(writer)
            while said := await reader.readline():
                self._hear(said.decode().split(" ", 5))
        except OSError:
            pass  # the adapter is gone
        finally:
            self._writers.discard(writer)
            writer.close()

    def _answer(self, words: list[str]) -> Iterator[bytes]:
        match words:
            case ["LIST"]:
                yield from (f"DEVICE {device}\n".encode() for device in sorted(self._devices))
            case ["HISTORY", begin, end]:
                kept = [payload for at, payload in sorted(self._history) if int(begin) <= at < int(end)]
                yield from (b"KEPT %s %s\n" % (self.credential.encode(), payload) for payload in kept)
            case ["CLOCK", device, _] if device in self._devices and self._asleep:
                yield b"ASLEEP\n"
            case ["CLOCK", device, now] if device in self._devices:
                ahead_ms = time.time_ns() // 1_000_000 + self._ahead_ms - int(now)
                if self._behaviour == "obey":
                    self._ahead_ms = 0
                yield f"CLOCK {ahead_ms} {'SET' if self._behaviour == 'obey' else 'LEFT'}\n".encode()

    def _hear(self, words: list[str]) -> None:
        if words[0] == "ACK":
            line = int(words[1])
            self._kept.pop(line, None)
            self._acknowledged.add(line)
        elif words[0] == "DO":
            _, command_id, left_ms, _, name, parameters = words
            self._commands[command_id] = (time.monotonic() + int(left_ms) / 1000, name, json.loads(parameters))
            if not self._asleep:
                self._do(command_id)

    def _do(self, command_id: str) -> None:
        ends, name, parameters = self._commands.pop(command_id)
        if time.monotonic() >= ends or self._behaviour == "silent":
            return
        if command_id not in self._answers:
            if self._behaviour == "obey":
                self._acts.append((name, parameters))
            self._answers[command_id] = "DONE" if self._behaviour == "obey" else "REFUSED"
        for writer in self._writers:
            writer.write(f"{self._answers[command_id]} {command_id} as the device says\n".encode())
