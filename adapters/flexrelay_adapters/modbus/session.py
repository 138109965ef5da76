"""What is known of one device while it is polled: who it is, what it has, what is read of it and how often."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from flexrelay_adapters._instants import next_instant
from flexrelay_adapters.modbus.config import DeviceSection, ModbusConfig
from flexrelay_adapters.modbus.frame import NOWHERE, Block, Found, pack_head
from flexrelay_adapters.modbus.plan import blocks_of
from flexrelay_adapters.modbus.sunspec import Survey, spans_of, text_of
from flexrelay_adapters.modbus.values import Span
from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.facts import NO_FACTS

_SUNSPEC_GAP = 64
"""Within its models a SunSpec device answers for every register."""


class WrongSerial(Exception):
    """The device is another one than is expected."""


@dataclass(slots=True)
class Group:
    """Blocks that are read together. `refused`: exception code and until when it is taken for granted (monotonic)."""

    blocks: tuple[Span, ...]
    useful: frozenset[Span]
    """The blocks with values; not those with the serial number alone."""
    interval_s: float
    refused: dict[Span, tuple[int, float]] = field(default_factory=dict)
    heads: dict[tuple[Block, ...], bytes] = field(default_factory=dict)


class Session:
    """One device. `serial` is what it must call itself: as configured, or the first that it told.

    `ready` after `take`, on each connection anew.
    """

    def __init__(self, name: str, device: DeviceSection, config: ModbusConfig) -> None:
        self.name = name
        self.device = device
        self.credential = device.credential
        self.plan = device.plan
        self.serial = device.serial or ""
        self.models: tuple[Found, ...] = ()
        self.groups: list[Group] = []
        self.ready = False
        self.trouble = ""
        """Why it is not read now."""
        self.silent = 0
        """How often in a row it did not answer."""
        self.facts = NO_FACTS
        self.last_ms = 0
        self.turn = asyncio.Lock()
        """Of commands and their ends: one writes after the other."""
        self.holding: dict[str, str] = {}
        """Command's name → id of the newest one that was written since the start; only that one may be ended."""
        self._config = config
        self._interval_s = config.interval_s if device.interval_s is None else device.interval_s
        self._serial_at = device.serial_at.span if device.serial_at is not None else NOWHERE

    @property
    def serial_at(self) -> Span:
        return self._serial_at

    def take(self, survey: Survey | None, serial: str) -> None:
        """Begin to read it as what it says that it is. Raises WrongSerial, ValueError when it has nothing to read."""
        self.check(serial)
        if self.device.sunspec is None:
            groups: dict[float, list[Span]] = {}
            for source in self.device.registers.values():
                spans = groups.setdefault(self._interval_s if source.interval_s is None else source.interval_s, [])
                spans.append(source.span)
                if source.scale_at is not None:
                    spans.append(Span(source.table, source.scale_at, 1))
            gap = self._config.max_gap
        else:
            assert survey is not None
            self._serial_at = survey.serial_at
            self.models = survey.models
            spans = spans_of(self.device.sunspec, survey.models)
            if not spans:
                known = ", ".join(str(found.model) for found in survey.models)
                raise ValueError(f"the device has nothing that a {self.device.sunspec} is read from; it has {known}")
            groups, gap = {self._interval_s: spans}, _SUNSPEC_GAP
        serial_spans = [self._serial_at] if self._serial_at.size else []
        self.groups = []
        for interval_s, wanted in sorted(groups.items()):
            blocks = blocks_of([*serial_spans, *wanted], max_gap=gap, max_count=self._config.max_count)
            useful = frozenset(block for block in blocks if any(_within(span, block) for span in wanted))
            self.groups.append(Group(blocks, useful, interval_s))
        self.serial = self.serial or serial
        nameplate = (survey.manufacturer, survey.model) if survey is not None else ("", "")
        self.facts = DeviceFacts(*nameplate, self.serial, survey.version if survey is not None else "")
        self.ready, self.trouble = True, ""

    def check(self, serial: str) -> None:
        """Raises WrongSerial."""
        if self.serial and serial != self.serial:
            raise WrongSerial(f"the device calls itself {serial[:64]!r}, not {self.serial!r}")

    def check_told(self, registers: bytes) -> None:
        """The same of the registers at `serial_at`."""
        self.check(text_of(registers))

    def head(self, group: Group, blocks: Sequence[Block]) -> bytes:
        """What stands before the registers of a poll."""
        key = tuple(blocks)
        head = group.heads.get(key)
        if head is None:
            read = [block.span for block in blocks]
            used = [
                found for found in self.models
                if self.device.sunspec is not None
                and any(span.address <= found.address and found.address + 2 <= span.end for span in read)
            ]  # fmt: skip
            head = pack_head(self.plan, self._serial_at, self.serial, used, blocks)
            if len(group.heads) >= 64:
                group.heads.clear()
            group.heads[key] = head
        return head

    def instant(self, now_ms: int) -> int:
        """The instant of a poll: no two of a device are the same."""
        self.last_ms = next_instant(self.last_ms, now_ms)
        return self.last_ms

    def given(self, group: Group, span: Span) -> int:
        """The exception code that this block has been refused with lately, or 0."""
        code, until = group.refused.get(span, (0, 0.0))
        return code if until > time.monotonic() else 0

    def refuse(self, group: Group, span: Span, code: int) -> None:
        group.refused[span] = (code, time.monotonic() + self._config.retry_refused_s)


def _within(span: Span, block: Span) -> bool:
    return span.table == block.table and block.address <= span.address and span.end <= block.end
