"""Commands to devices: written to their control objects, confirmed by reading back, sent when the device is awake.

What is written is data (`plan`), so it can be looked at without a device. Writing it twice does no more than writing it
once, so a command that a restart has interrupted is simply written again.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from flexrelay_adapters.lwm2m.coap.codes import METHOD_NOT_ALLOWED, SENML_CBOR, TLV
from flexrelay_adapters.lwm2m.coap.layer import NoAnswer
from flexrelay_adapters.lwm2m.config import CommandConfig
from flexrelay_adapters.lwm2m.formats import FormatError, Value, path_text
from flexrelay_adapters.lwm2m.formats.tlv import integer
from flexrelay_adapters.lwm2m.operations import Operations, Refused
from flexrelay_adapters.lwm2m.registration import Registration, Registrations
from flexrelay_sdk import Command, CommandState, CommandUpdate

OnUpdate = Callable[[CommandUpdate], Awaitable[None]]

AGAIN_S: Final = 5.0
"""Between two tries to reach a device that does not answer."""


class Unfit(ValueError):
    """The command cannot be said in the device's objects."""


@dataclass(frozen=True, slots=True)
class Writing:
    """Values below an object instance, and what they amount to (`values` of the command's last update). With the path
    "/" the values are of several objects, each by its whole path."""

    path: str
    values: Mapping[str, Value]
    effect: Mapping[str, int]


def plan(command: Command, config: CommandConfig) -> Writing:
    """What a command writes. Raises Unfit.

    `set_power` takes `power_w` (positive = withdrawal) and optionally `from_ms`, `until_ms`: 3310 load control, 3312
    power control, or 3310 with the set point 3308. `set_low_battery` takes `soc_permille` and `clear_battery_shutdown`
    nothing: 3411.
    """
    parameters = command.parameters
    match command.name:
        case "set_power" if config.via == "set_point":
            power_w = _power(parameters, -config.rated_w, config.rated_w, "a set point")
            event: dict[str, Value] = {
                f"/3310/{config.instance}/{resource}": value for resource, value in _event(command).items()
            }
            return Writing("/", {**event, f"/3308/{config.instance}/5900": float(power_w)}, {"power_w": power_w})
        case "set_power":
            percent = _percent(parameters, config.rated_w)
            effect = {"power_w": percent * config.rated_w // 100}
            if config.via == "power_control":
                path = f"/3312/{config.instance}"
                return Writing(path, {"5850": percent > 0, "5851": percent}, effect)
            return Writing(f"/3310/{config.instance}", {**_event(command), "5827": percent}, effect)
        case "set_low_battery":
            permille = parameters.get("soc_permille", -1)
            if not 0 <= permille <= 1000:
                raise Unfit("soc_permille must be 0 to 1000")
            return Writing(f"/3411/{config.instance}", {"5": permille // 10}, {"soc_permille": permille // 10 * 10})
        case "clear_battery_shutdown":
            return Writing(f"/3411/{config.instance}", {"7": False}, {})
    raise Unfit(f"no object of LwM2M does {command.name[:60]!r}")


def _event(command: Command) -> dict[str, Value]:
    """Event identifier, start and duration of a load control event."""
    from_ms = command.parameters.get("from_ms", 0)
    until_ms = command.parameters.get("until_ms", command.expires_at)
    minutes = max(1, (until_ms - from_ms) // 60_000) if from_ms else 1
    return {"5823": command.command_id, "5824": from_ms // 1000, "5825": minutes}


def _power(parameters: Mapping[str, int], least_w: int, most_w: int, what: str) -> int:
    power_w = parameters.get("power_w")
    if power_w is None:
        raise Unfit("power_w is missing")
    if not least_w <= power_w <= most_w:
        raise Unfit(f"{power_w} W: {what} can say {least_w} to {most_w} W (rated_w) of withdrawal")
    return power_w


def _percent(parameters: Mapping[str, int], rated_w: int) -> int:
    power_w = _power(parameters, 0, rated_w, "load control")
    return (power_w * 100 + rated_w // 2) // rated_w


class Commander:
    """Commands under way. `clock` is wall-clock UTC seconds."""

    def __init__(
        self,
        config: CommandConfig,
        operations: Operations,
        registrations: Registrations,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._operations = operations
        self._registrations = registrations
        self._clock = clock
        self._running: set[str] = set()
        self._turns: dict[str, asyncio.Lock] = {}
        """By credential, while commands are under way: a device has one instance of each object, so that a command's
        writing and reading back must not meet another's."""
        self._users: Counter[str] = Counter()

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """Tell every state until it is acked, failed or expired. Raises ValueError when it is under way already."""
        if command.command_id in self._running:
            raise ValueError(f"command {command.command_id} is under way")
        self._running.add(command.command_id)
        credential = command.credential
        turn = self._turns.setdefault(credential, asyncio.Lock())
        self._users[credential] += 1
        try:
            await self._execute(command, on_update, turn)
        finally:
            self._running.discard(command.command_id)
            self._users[credential] -= 1
            if not self._users[credential]:
                del self._users[credential], self._turns[credential]

    async def _execute(self, command: Command, on_update: OnUpdate, turn: asyncio.Lock) -> None:
        async def tell(state: CommandState, detail: str = "", values: Mapping[str, int] | None = None) -> None:
            at = int(self._clock() * 1000)
            await on_update(CommandUpdate(command.command_id, state, at, detail, values or {}))

        await tell(CommandState.QUEUED)
        try:
            writing = plan(command, self._config)
        except Unfit as error:
            await tell(CommandState.FAILED, str(error))
            return
        said = False

        async def on_sent() -> None:
            nonlocal said
            if not said:
                said = True
                await tell(CommandState.SENT)

        while (left_s := command.expires_at / 1000 - self._clock()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    registration = await self._reachable(command.credential)
                    try:
                        async with turn:
                            if not self._registrations.reachable(registration, self._clock()):
                                continue  # it fell asleep while another command had its turn
                            peer, awake_until = registration.peer, registration.awake_until
                            detail = await self._write(registration, writing, on_sent)
                    except NoAnswer:
                        if registration.peer is not peer or (
                            registration.queue and registration.awake_until > awake_until
                        ):
                            continue  # it was heard meanwhile, here or from elsewhere: it is awake
                        registration.awake_until = 0.0
                        await asyncio.sleep(0 if registration.queue else AGAIN_S)
                        continue
            except TimeoutError:
                break
            except (Refused, FormatError) as error:
                await tell(CommandState.FAILED, str(error)[:200])
                return
            await tell(CommandState.ACKED, detail, writing.effect)
            return
        await tell(CommandState.EXPIRED, "not confirmed in time" if said else "the device was not reached in time")

    async def _reachable(self, credential: str) -> Registration:
        """The device's registration, once something may be sent to it."""
        while True:
            registration = self._registrations.by_credential.get(credential)
            if registration is not None and self._registrations.reachable(registration, self._clock()):
                return registration
            await self._registrations.heard(credential)

    async def _write(self, registration: Registration, writing: Writing, on_sent: Callable[[], Awaitable[None]]) -> str:
        """Write, and read back; what is to be said about it. Raises NoAnswer, Refused, FormatError."""
        peer = registration.peer
        if peer is None:
            raise NoAnswer("the device is gone")
        content_format = TLV if registration.version == "1.0" else SENML_CBOR
        several = writing.path == "/"
        if several and content_format == TLV:
            raise Refused(METHOD_NOT_ALLOWED, "a device of LwM2M 1.0 has no Write-Composite")
        gone_out = asyncio.Event()
        asking = asyncio.create_task(
            self._operations.write_composite(peer, writing.values, content_format, sent=gone_out.set)
            if several
            else self._operations.write(peer, writing.path, writing.values, content_format, sent=gone_out.set),
            name=f"write {writing.path} of {registration.credential}",
        )
        waiting = asyncio.create_task(gone_out.wait())
        try:
            await asyncio.wait({asking, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if gone_out.is_set():
                await on_sent()
            await asking
        finally:
            waiting.cancel()
            asking.cancel()
            await asyncio.gather(asking, waiting, return_exceptions=True)
        if self._config.confirm:
            try:
                if several:
                    records = await self._operations.read_composite(peer, list(writing.values), content_format)
                else:
                    records = await self._operations.read(peer, writing.path, content_format)
            except Refused as error:
                return f"accepted; it cannot be read back: {error}"[:200]
            has = {
                path_text(record.path) if several else str(record.path[2]): record.value
                for record in records
                if len(record.path) == 3
            }
            for name, value in writing.values.items():
                if not _same(value, has.get(name)):
                    place = name if several else f"{writing.path}/{name}"
                    raise Refused(0x45, f"{place} reads back as {has.get(name)!r}, not {value!r}"[:200])
        return ""


def _same(written: Value, read: Value) -> bool:
    """Whether a value read back is the one written; TLV does not tell types."""
    if isinstance(read, bytes):
        if isinstance(written, str):
            return read == written.encode()
        try:
            return integer(read) == written
        except FormatError:
            return False
    return read == written
