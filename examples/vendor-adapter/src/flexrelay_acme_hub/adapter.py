"""The adapter: hub → sink → acknowledgement, commands → hub → answers, and questions to the hub."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from flexrelay_acme_hub.config import AcmeHubConfig
from flexrelay_acme_hub.inquiry import ask
from flexrelay_acme_hub.link import Link, LinkLost
from flexrelay_sdk import (
    ClockState,
    Codec,
    Command,
    CommandState,
    CommandUpdate,
    Decoded,
    DecodeError,
    DeviceFacts,
    Frame,
    Sink,
    SinkUnavailable,
)
from flexrelay_sdk.facts import cleaned

log = logging.getLogger(__name__)

PROTOCOL = "acme_hub"
_MOST = 1_000
"""Devices behind a hub."""
OnUpdate = Callable[[CommandUpdate], Awaitable[None]]


class _Checked:
    """The mapping, for lines of the right size from a device that has a name."""

    def __init__(self, codec: Codec, max_line_bytes: int) -> None:
        self._codec = codec
        self._most = max_line_bytes

    def decode(self, frame: Frame) -> Decoded:
        if len(frame.payload) > self._most:
            raise DecodeError("oversized", f"{len(frame.payload)} bytes, at most {self._most} are taken", "payload")
        return self._codec.decode(frame)


class AcmeHubAdapter:
    """`Adapter`, `CommandTarget`, `Discoverer`, `Backfiller`, `TimeSetter` and `FactTeller` over one hub."""

    def __init__(self, config: AcmeHubConfig, codec: Codec) -> None:
        self.name = config.name
        self.protocol = PROTOCOL
        self._config = config
        self._codec = _Checked(codec, config.max_line_bytes)
        self._link: Link | None = None
        self._online = asyncio.Event()
        self._answers: dict[str, asyncio.Future[tuple[CommandState, str]]] = {}
        self._facts: dict[str, DeviceFacts] = {}

    def validate(self) -> None:
        file = self._config.token_file
        if file is not None and not file.is_file():
            raise ValueError(f"{self.name}.token_file: there is no file {file}")

    @property
    def endpoint(self) -> str:
        return f"{self._config.host}:{self._config.port}"

    @property
    def connected(self) -> bool:
        return self._online.is_set()

    @property
    def can_command(self) -> bool:
        return True

    def channels_for(self, credential: str) -> Sequence[str]:
        return [f"{self.endpoint}/{credential}"]

    def codec_for(self, channel: str) -> Codec | None:
        return self._codec if channel.startswith(f"{self.endpoint}/") else None

    # -- readings ----------------------------------------------------------------------------------------------------

    async def run(self, sink: Sink) -> None:
        while True:
            try:
                await self._serve(sink)
            except LinkLost as error:
                log.warning("%s: %s", self.name, error)
            except SinkUnavailable as error:
                log.warning("%s: the gateway cannot store (%s); the hub will send again", self.name, error)
            await asyncio.sleep(self._config.retry_s)

    async def _serve(self, sink: Sink) -> None:
        link = await Link.open(self._config, self._token())
        try:
            self._link = link
            self._online.set()
            while True:
                await self._take(link, await link.lines(self._config.batch), sink)
        finally:
            self._online.clear()
            self._link = None
            await link.close()

    async def _take(self, link: Link, lines: Sequence[bytes], sink: Sink) -> None:
        now = time.time_ns() // 1_000_000
        numbers: list[str] = []
        frames: list[Frame] = []
        for line in lines:
            word, _, rest = line.partition(b" ")
            if word == b"READING":
                number, _, rest = rest.partition(b" ")
                device, _, payload = rest.partition(b" ")
                numbers.append(number.decode(errors="replace"))
                name = device.decode(errors="replace")
                frames.append(Frame(PROTOCOL, name, payload, now, f"{self.endpoint}/{name}"))
            elif word in (b"DONE", b"REFUSED"):
                self._answer(word, rest.decode(errors="replace"))
            elif word == b"ABOUT":
                self._learn(rest.decode(errors="replace"))
        if frames:
            await sink.put(frames, self._codec)
            for stored in numbers:
                link.say(f"ACK {stored}")
            await link.flush()

    def _token(self) -> str:
        if self._config.token is not None:
            return self._config.token.get_secret_value()
        assert self._config.token_file is not None
        return self._config.token_file.read_text().strip()

    # -- commands ----------------------------------------------------------------------------------------------------

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """Raises ValueError when the command is under way already."""
        if command.command_id in self._answers:
            raise ValueError(f"command {command.command_id} is under way")
        answer = self._answers[command.command_id] = asyncio.get_running_loop().create_future()
        try:
            await self._tell(on_update, command, CommandState.QUEUED)
            try:
                async with asyncio.timeout(max(0, command.expires_at - _now_ms()) / 1000):
                    if not await self._send(command):
                        raise TimeoutError
                    await self._tell(on_update, command, CommandState.SENT)
                    state, detail = await answer
            except TimeoutError:
                state, detail = CommandState.EXPIRED, "no answer in time"
            await self._tell(on_update, command, state, detail)
        finally:
            del self._answers[command.command_id]

    async def _send(self, command: Command) -> bool:
        """Whether it went out before it expired."""
        while (left_ms := command.expires_at - _now_ms()) > 0:
            await self._online.wait()
            link = self._link
            if link is None:
                continue
            parameters = json.dumps(dict(command.parameters))
            try:
                link.say(f"DO {command.command_id} {left_ms} {command.credential} {command.name} {parameters}")
                await link.flush()
            except LinkLost:
                await asyncio.sleep(0.05)
                continue
            return True
        return False

    def _answer(self, word: bytes, rest: str) -> None:
        command_id, _, why = rest.partition(" ")
        waiting = self._answers.get(command_id)
        if waiting is not None and not waiting.done():
            waiting.set_result((CommandState.ACKED if word == b"DONE" else CommandState.FAILED, why))

    # -- facts -------------------------------------------------------------------------------------------------------

    def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
        return list(self._facts.items())

    def _learn(self, rest: str) -> None:
        """`ABOUT device {"maker": …, "model": …, "serial": …, "firmware": …, "battery": percent}`; of the first devices
        only, and what is wrong in it is left out: the device wrote it."""
        device, _, text = rest.partition(" ")
        try:
            told = json.loads(text)
        except ValueError:
            return
        if isinstance(told, dict) and (device in self._facts or len(self._facts) < _MOST):
            battery = told.get("battery")
            permille = battery * 10 if isinstance(battery, int) else None
            texts = [told.get(name) for name in ("maker", "model", "serial", "firmware")]
            self._facts[device] = cleaned(DeviceFacts(*texts, battery_permille=permille))

    # -- questions ---------------------------------------------------------------------------------------------------

    async def discover(self) -> AsyncIterator[str]:
        """Every device that the hub knows."""
        async for _, device in ask(self._config, self._token(), "LIST"):
            yield device.decode(errors="replace")

    async def backfill(self, sink: Sink, from_ms: int, until_ms: int, credentials: Sequence[str] = ()) -> int:
        """What the hub has kept, a batch after the other: the hub waits while the gateway stores."""
        count = 0
        frames: list[Frame] = []
        async for _, device, payload in ask(self._config, self._token(), f"HISTORY {from_ms} {until_ms}"):
            name = device.decode(errors="replace")
            if not credentials or name in credentials:
                frames.append(Frame(PROTOCOL, name, payload, _now_ms(), f"{self.endpoint}/{name}"))
            if len(frames) >= self._config.batch:
                await sink.put(frames, self._codec)
                count += len(frames)
                frames = []
        if frames:
            await sink.put(frames, self._codec)
        return count + len(frames)

    async def sync_time(self, credential: str) -> ClockState:
        """Raises ValueError for a device that the hub does not know, LinkLost for one that sleeps."""
        async for word, *rest in ask(self._config, self._token(), f"CLOCK {credential} {_now_ms()}"):
            match word:
                case b"CLOCK":
                    return ClockState(int(rest[0]), rest[1] == b"SET")
                case b"ASLEEP":
                    raise LinkLost(f"{credential} sleeps")
        raise ValueError(f"the hub has no {credential}")

    async def _tell(self, on_update: OnUpdate, command: Command, state: CommandState, detail: str = "") -> None:
        await on_update(CommandUpdate(command.command_id, state, _now_ms(), detail))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
