"""Commands to devices: written to their control objects, confirmed by reading back, sent when the device is awake.

What is written is data (`orders`), so it can be looked at without a device. Writing it twice does no more than writing
it once, so a command that a restart has interrupted is simply written again. What has no end in the device is ended by
`Commander.end`, which the gateway calls after `expires_at`: it has kept on disk that the command was sent.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from flexrelay_adapters._commands import reached
from flexrelay_adapters.lwm2m.coap.codes import METHOD_NOT_ALLOWED, SENML_CBOR, TLV
from flexrelay_adapters.lwm2m.coap.layer import NoAnswer
from flexrelay_adapters.lwm2m.config import CommandConfig
from flexrelay_adapters.lwm2m.formats import FormatError, Record, Value, path_text
from flexrelay_adapters.lwm2m.formats.tlv import integer
from flexrelay_adapters.lwm2m.operations import Operations, Refused
from flexrelay_adapters.lwm2m.orders import RELEASED, Unfit, Writing, begins_s, must_end, plan
from flexrelay_adapters.lwm2m.registration import Registration, Registrations
from flexrelay_sdk import Command, CommandState, CommandUpdate

OnUpdate = Callable[[CommandUpdate], Awaitable[None]]

AGAIN_S: Final = 5.0
"""Between two tries to reach a device that does not answer."""


class _Superseded(Exception):
    """It is not sent again."""


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
        self._wrote: dict[tuple[str, str, str], dict[str, Value]] = {}
        """Credential, path and resource → commands and values that may stand there, the newest last: since the start,
        of those to be ended. Two may write the same value, and the last may not have come."""

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """Tell every state until it is acked, failed or expired. Raises ValueError when it is under way already."""
        if command.command_id in self._running:
            raise ValueError(f"command {command.command_id} is under way")
        self._running.add(command.command_id)
        try:
            with self._turn(command.credential) as turn:
                await self._execute(command, on_update, turn)
        finally:
            self._running.discard(command.command_id)

    def must_end(self, command: Command) -> bool:
        return must_end(command, self._config)

    async def end(self, command: Command, before: Command | None) -> None:
        """See `flexrelay_sdk.CommandEnder`; waits for the device. What holds another value than the command wrote is
        left alone: somebody else has decided since."""
        left = plan(command, self._config)
        then = plan(before, self._config).values if before is not None else RELEASED
        registration = await self._reachable(command.credential)
        with self._turn(command.credential) as turn:
            async with turn:
                peer = registration.peer
                if peer is None or not self._registrations.reachable(registration, self._clock()):
                    raise ConnectionError(f"{command.credential} sleeps")
                content_format = TLV if registration.version == "1.0" else SENML_CBOR
                try:
                    held = _values(await self._operations.read(peer, left.path, content_format))
                    back = {}
                    for name, value in left.values.items():
                        ours = self._wrote.get((command.credential, left.path, name)) or {command.command_id: value}
                        if next(reversed(ours)) == command.command_id and any(
                            _same(each, held.get(name)) for each in ours.values()
                        ):
                            back[name] = then[name]
                    if back:
                        await self._operations.write(peer, left.path, back, content_format)
                    self._forget(command, left)
                except NoAnswer as error:
                    raise ConnectionError(str(error)) from None
                except Refused as error:
                    if error.code >> 5 == 5:  # a fault of the device, of now
                        raise ConnectionError(f"{command.credential} puts it off: {error}") from None
                    raise ValueError(f"the device refuses it: {error}") from None
                except FormatError as error:
                    raise ValueError(f"the device answers what cannot be read: {error}") from None

    def _remember(self, command: Command, writing: Writing) -> None:
        """It goes out, and is the newest."""
        for name, value in writing.values.items():
            ours = self._wrote.setdefault((command.credential, writing.path, name), {})
            ours.pop(command.command_id, None)
            ours[command.command_id] = value

    def _is_superseded(self, command: Command, writing: Writing) -> bool:
        """Whether a newer one went out since it did."""
        there = [self._wrote.get((command.credential, writing.path, name)) for name in writing.values]
        return any(ours and next(reversed(ours)) != command.command_id for ours in there)

    def _forget(self, command: Command, writing: Writing) -> None:
        """Where it is the newest it has taken the place of the others, or was ended."""
        for name in writing.values:
            ours = self._wrote.get((command.credential, writing.path, name), {})
            if not ours or next(reversed(ours)) == command.command_id:
                self._wrote.pop((command.credential, writing.path, name), None)

    @contextmanager
    def _turn(self, credential: str) -> Iterator[asyncio.Lock]:
        """The device's lock, which is forgotten with its last user."""
        self._users[credential] += 1
        try:
            yield self._turns.setdefault(credential, asyncio.Lock())
        finally:
            self._users[credential] -= 1
            if not self._users[credential]:
                del self._users[credential]
                self._turns.pop(credential, None)

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
        await reached(int(begins_s(command, self._config) * 1000), lambda: int(self._clock() * 1000))
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
                            if self.must_end(command):  # on disk before it goes out: it is ended whatever happens
                                if said and self._is_superseded(command, writing):
                                    raise _Superseded("a newer command holds the device")
                                await on_sent()
                                self._remember(command, writing)
                            detail = await self._write(registration, writing, on_sent)
                            if self.must_end(command):
                                self._forget(command, writing)
                                self._remember(command, writing)
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
            except (Refused, FormatError, _Superseded) as error:
                for name in writing.values:
                    self._wrote.get((command.credential, writing.path, name), {}).pop(command.command_id, None)
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
            has = {path_text(record.path): record.value for record in records} if several else _values(records)
            for name, value in writing.values.items():
                if not _same(value, has.get(name)):
                    place = name if several else f"{writing.path}/{name}"
                    raise Refused(0x45, f"{place} reads back as {has.get(name)!r}, not {value!r}"[:200])
        return ""


def _values(records: Sequence[Record]) -> dict[str, Value]:
    """Values of an object instance's resources, by their numbers."""
    return {str(record.path[2]): record.value for record in records if len(record.path) == 3}


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
