"""One endpoint: a connection, the units behind it, and when each is read. Its troubles stay its own."""

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flexrelay_adapters.modbus._client import Link
from flexrelay_adapters.modbus.config import DeviceSection, ModbusConfig
from flexrelay_adapters.modbus.frame import Block
from flexrelay_adapters.modbus.intake import Intake
from flexrelay_adapters.modbus.refusals import ConnectionLost, Refused
from flexrelay_adapters.modbus.session import Group, Session, WrongSerial
from flexrelay_adapters.modbus.sunspec import NoSunSpec, survey, text_of
from flexrelay_adapters.modbus.values import Span
from flexrelay_sdk import Frame

log = logging.getLogger(__name__)

PROTOCOL = "modbus"
_MAX_SILENCE_S = 60.0


@dataclass(slots=True)
class ModbusStats:
    """Counters since the adapter was made."""

    connections: int = 0
    polls: int = 0
    blocks: int = 0
    frames: int = 0
    busy: int = 0
    """Polls that the device, or the gateway before it, put off."""
    refused: int = 0
    """Blocks refused with an exception that another try does not change."""
    lost: int = 0
    """Connections that ended."""
    wrong_serial: int = 0


class _Jobs:
    """What is due when; a session without a group is to be prepared."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Session, Group | None]] = []
        self._count = itertools.count()

    def put(self, due: float, session: Session, group: Group | None) -> None:
        heapq.heappush(self._heap, (due, next(self._count), session, group))

    def first(self) -> tuple[float, Session, Group | None]:
        due, _, session, group = self._heap[0]
        return due, session, group

    def pop(self) -> None:
        heapq.heappop(self._heap)


class Endpoint:
    """`run` until cancelled."""

    def __init__(
        self,
        owner: str,
        address: str,
        devices: Sequence[tuple[str, DeviceSection]],
        config: ModbusConfig,
        stats: ModbusStats,
        clock: Callable[[], int],
    ) -> None:
        self.address = address
        self.sessions = {device.credential: Session(name, device, config) for name, device in devices}
        self.trouble = ""
        self._owner = owner
        self._config = config
        self._stats = stats
        self._clock = clock
        self._link: Link | None = None
        self._changed = asyncio.Condition()
        self._failures = 0

    @property
    def connected(self) -> bool:
        link = self._link
        return link is not None and link.alive and any(session.ready for session in self.sessions.values())

    async def run(self, intake: Intake) -> None:
        while True:
            try:
                await self._serve(intake)
            except ConnectionLost as error:
                self._stats.lost += 1
                self._tell(str(error))
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError
            most = min(self._config.backoff_max_s, self._config.backoff_min_s * 2 ** min(self._failures, 20))
            self._failures += 1
            await asyncio.sleep(most * (0.5 + random.random() / 2))  # noqa: S311  # jitter, not a secret

    async def online(self, credential: str) -> tuple[Link, Session]:
        """The connection, once there is one on which this device has been recognised."""
        session = self.sessions[credential]
        async with self._changed:
            await self._changed.wait_for(lambda: self._link is not None and self._link.alive and session.ready)
        assert self._link is not None
        return self._link, session

    def _tell(self, trouble: str) -> None:
        again = trouble == self.trouble
        self.trouble = trouble
        log.log(logging.DEBUG if again else logging.WARNING, "%s: %s", self._owner, trouble)

    async def _serve(self, intake: Intake) -> None:
        link = await Link.open(self.address, self._config.timeout_s)
        try:
            self._link = link
            self._stats.connections += 1
            await self._poll_all(link, intake)
        finally:
            self._link = None
            for session in self.sessions.values():
                session.ready = False
            link.close()

    async def _poll_all(self, link: Link, intake: Intake) -> None:
        jobs = _Jobs()
        for session in self.sessions.values():
            jobs.put(time.monotonic() + self._silence_s(session), session, None)
        while True:
            due, session, group = jobs.first()
            wait_s = due - time.monotonic()
            if wait_s > 0:
                await self._idle(link, wait_s)
                continue
            jobs.pop()
            try:
                if group is None:
                    if await self._prepare(link, session):
                        for each in session.groups:
                            jobs.put(due, session, each)
                        continue
                elif not any(each is group for each in session.groups):
                    continue  # the device has been prepared anew since
                elif session.ready and await self._poll(link, session, group, intake):
                    jobs.put(max(due + group.interval_s, time.monotonic() - group.interval_s), session, group)
                    continue
                else:
                    session.ready, session.groups = False, []
            except ConnectionLost as error:
                session.silent += 1
                raise ConnectionLost(f"{error} (unit {session.device.unit}, {session.name})") from None
            jobs.put(time.monotonic() + self._config.retry_refused_s, session, None)

    def _silence_s(self, session: Session) -> float:
        """How long a device that did not answer is left alone: it must not keep the others of its endpoint waiting."""
        if session.silent < 2:
            return 0.0
        return float(min(_MAX_SILENCE_S, self._config.timeout_s * 2 ** min(session.silent - 1, 10)))

    async def _idle(self, link: Link, wait_s: float) -> None:
        """Until the next poll, in steps that notice a lost connection."""
        if not link.alive:
            raise ConnectionLost(f"{self.address}: the device has closed the connection")
        await asyncio.sleep(min(wait_s, 0.25))

    async def _prepare(self, link: Link, session: Session) -> bool:
        """Find out who it is and what it has. False: it is refused for now."""

        async def read(span: Span) -> bytes:
            return await link.read(session.device.unit, span)

        try:
            if session.device.sunspec is not None:
                found = await survey(read)
                session.take(found, found.serial)
            else:
                serial = text_of(await read(session.serial_at)) if session.serial_at.size else ""
                session.take(None, serial)
        except WrongSerial as error:
            self._stats.wrong_serial += 1
            self._put_off(session, f"{error}: it is not read; if it was exchanged, enrol it anew and set `serial`")
        except (Refused, NoSunSpec, ValueError) as error:
            self._put_off(session, str(error))
        else:
            session.silent = 0
            self._failures = 0
            self.trouble = ""
            async with self._changed:
                self._changed.notify_all()
        return session.ready

    def _put_off(self, session: Session, why: str) -> None:
        session.ready = False
        again = session.trouble == why
        session.trouble = why
        level = logging.DEBUG if again else logging.WARNING
        log.log(level, "%s: %s (%s): %s", self._owner, session.credential, session.name, why)

    async def _poll(self, link: Link, session: Session, group: Group, intake: Intake) -> bool:
        """One frame into the sink. False: the device is another one now, or its layout has changed."""
        self._stats.polls += 1
        blocks: list[Block] = []
        parts: list[bytes] = []
        for span in group.blocks:
            code = session.given(group, span) if group.refused else 0
            if not code:
                try:
                    parts.append(await link.read(session.device.unit, span))
                    self._stats.blocks += 1
                except Refused as error:
                    if error.transient:
                        self._stats.busy += 1
                        return True
                    code = error.code
                    self._stats.refused += 1
                    session.refuse(group, span, code)
            blocks.append(Block(span, code))
        session.silent = 0
        now = session.instant(self._clock())
        data = b"".join(parts)
        frame = Frame(PROTOCOL, session.credential, session.head(group, blocks) + data, now, session.credential)
        await intake.put(frame)
        self._stats.frames += 1
        refused = {block.span: block.exception for block in blocks if block.exception}
        if refused and group.useful <= refused.keys():
            self._put_off(session, f"the device refuses what it is asked for: {Refused(next(iter(refused.values())))}")
            return False
        return self._still_itself(session, blocks, data)

    def _still_itself(self, session: Session, blocks: Sequence[Block], data: bytes) -> bool:
        """The frame with the other serial number, or with models that have moved, is a dead letter already."""
        wanted = session.serial_at
        offset = 0
        for span, exception in blocks:
            if exception:
                continue
            if wanted.size and session.serial and span.table == wanted.table and span.address <= wanted.address:
                begin = offset + 2 * (wanted.address - span.address)
                if wanted.end <= span.end and text_of(data[begin : begin + 2 * wanted.size]) != session.serial:
                    self._stats.wrong_serial += 1
                    self._put_off(
                        session, "the device tells another serial number than before: it is not read any more"
                    )
                    return False
            for found in session.models:
                if span.address <= found.address and found.address + 2 <= span.end:
                    begin = offset + 2 * (found.address - span.address)
                    if int.from_bytes(data[begin : begin + 2], "big") != found.model:
                        self._put_off(session, "the device's models have moved: it is surveyed anew")
                        return False
            offset += 2 * span.size
        return True
