"""Frames of OPC UA data changes and history → measurements.

Changes of one device with the same instant (in ms) are one measurement. The StatusCode decides about a value: Bad ones
are left out, Uncertain ones are taken; both flag the measurement. Overflow notes a gap before it. Values become
registers as everywhere in flexrelay (`flexrelay_sdk.mapping.Conversion`): exactly, by their shortest decimal, rounded
half to even.
"""

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from flexrelay_adapters.opcua.config import NodeSource, OpcuaConfig
from flexrelay_adapters.opcua.frame import nodes_of, open_frame
from flexrelay_adapters.opcua.wire import (
    BAD,
    HEAD,
    LAYOUTS,
    LIMITS,
    OVERFLOW,
    UNCERTAIN,
    Item,
    Malformed,
    item_at,
    milliseconds,
)
from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance
from flexrelay_sdk import Decoded, DecodeError, Frame
from flexrelay_sdk.mapping import Conversion, shortest_single

MAX_ITEMS: Final = 20_000
"""Of one frame; ingest bounds its bytes besides."""
_PLANS: Final = 4096
_SHAPES: Final = 16
"""Forms remembered a device: as many as there are lengths of its frames."""
_TICKS_1970: Final = 116_444_736_000_000_000
_TICKS_MS: Final = 10_000
_NEAR: Final = 0.49


class Register:
    """How a value becomes a register's integer. The float64 product says it wherever its error cannot reach the next
    integer (below `limit` and not near a half); anything else is computed exactly."""

    __slots__ = ("_exact", "factor", "low", "name", "near")

    def __init__(self, name: str, source: NodeSource) -> None:
        self.name = name
        self._exact = Conversion(name, source.unit, source.scale, source.negate, source.node)
        whole = Conversion(name, source.unit, max(source.scale, 0), source.negate).factor
        self.factor: float = whole if source.scale >= 0 else whole / 10**-source.scale
        self.low = self._exact.low
        # what is only copied is exact, its halves too; a product near a half might lie on the other side of it
        self.near = 0.51 if self.factor in (1, -1) else _NEAR

    def convert(self, value: float, limit: float) -> int:
        """Raises DecodeError: not_a_number, out_of_range."""
        if type(value) is not bool and -limit < (product := value * self.factor) < limit:
            result = round(product)
            if -self.near < product - result < self.near and result >= self.low:
                return result
        if limit == LIMITS["f"] and type(value) is float:
            return self._exact.convert(shortest_single(value, self._exact.place))
        return self._exact.convert(value)


class NodeCodec:
    """`Codec` of the frames of `flexrelay_adapters.opcua.frame`; pure, without the OPC UA library."""

    def __init__(self, config: OpcuaConfig, *, fast: bool = True) -> None:
        """`fast=False`: every frame is looked at item by item."""
        self._devices: Mapping[str, Mapping[str, NodeSource]] = {
            config.credential(name): device.registers for name, device in config.devices.items()
        }
        self._by_source = config.time == "source"
        self._fast = fast
        self._plans: dict[tuple[str, bytes], dict[int, Register]] = {}
        self._shapes: dict[tuple[str, int], _Shape] = {}
        self._closely = 0
        """How many frames were looked at item by item."""

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError: cut_off, unknown_version, unknown_node, bad_status, not_a_number, no_value, …"""
        shape = self._shapes.get((frame.credential, len(frame.payload)))
        if shape is not None:
            measurements = shape.decode(frame.payload)
            if measurements is not None:
                return Decoded(measurements)
        return Decoded(self._item_by_item(frame))

    def _plan(self, credential: str, table: bytes) -> dict[int, Register]:
        plan = self._plans.get((credential, table))
        if plan is None:
            sources = self._devices.get(credential)
            if sources is None:
                raise DecodeError("unknown_device", f"{credential[:80]!r} is not in this adapter's configuration")
            by_node = {source.node: Register(name, source) for name, source in sources.items()}
            plan = {handle: by_node[node] for handle, node in nodes_of(table) if node in by_node}
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            self._plans[credential, table] = plan
        return plan

    def _item_by_item(self, frame: Frame) -> tuple[Measurement, ...]:
        payload = frame.payload
        envelope = open_frame(payload)
        plan = self._plan(frame.credential, envelope.table)
        readings = _Readings()
        offset, end = envelope.start, len(payload)
        handles: list[int] = []
        keys: list[int] = []
        while offset < end:
            if len(handles) >= MAX_ITEMS:
                raise DecodeError("too_many", f"more than {MAX_ITEMS} values in one frame")
            handles.append(0)
            start = offset
            try:
                item, offset = item_at(payload, offset, end)
            except Malformed as error:
                raise DecodeError("malformed", f"value {len(handles)}: {error}", "items") from None
            handles[-1] = item.handle
            keys.append(HEAD.unpack_from(payload, start)[1] if offset - start >= HEAD.size else 0)
            first, second = item.source_time, item.server_time
            if not self._by_source:
                first, second = second, first
            instant = milliseconds(first) or milliseconds(second) or frame.received_at
            readings.take(plan.get(item.handle), item, instant + envelope.shift_ms)
        found = readings.measurements()
        self._closely += 1
        if self._fast and not envelope.shift_ms and not readings.refused and self._worth_learning(frame):
            self._learn(frame, envelope.start, handles, keys, plan)
        return found

    def _worth_learning(self, frame: Frame) -> bool:
        """Where frames of one length keep changing their form, most of them are not learned in vain."""
        return (frame.credential, len(frame.payload)) not in self._shapes or not self._closely % 8

    def _learn(self, frame: Frame, start: int, handles: list[int], keys: list[int], plan: dict[int, Register]) -> None:
        """Remember the form of a frame whose items have one layout each: most frames of its length will be like it."""
        if any(key not in LAYOUTS for key in keys) or any(handle not in plan for handle in handles):
            return
        layouts = [LAYOUTS[key] for key in keys]
        places = layouts[0][2:6]
        time = layouts[0].source_time if self._by_source else layouts[0].server_time
        if time < 0 or any(layout[2:6] != places for layout in layouts):
            return
        if len(self._shapes) >= _SHAPES * len(self._devices):
            self._shapes.clear()
        fields = struct.Struct(f"<{start}s" + "".join(["IH" + layout.codes for layout in layouts]))
        self._shapes[frame.credential, len(frame.payload)] = _Shape(
            fields=fields,
            step=2 + len(layouts[0].codes),
            head=frame.payload[:start],
            handles=tuple(handles),
            keys=tuple(keys),
            time=3 + time,
            status=3 + layouts[0].status if layouts[0].status >= 0 else 0,
            registers=tuple([plan[handle] for handle in handles]),
            limits=tuple([layout.limit for layout in layouts]),
        )


class _Shape(NamedTuple):
    """What a frame of one length looked like: one struct for all of it, and how to tell that it is so again."""

    fields: struct.Struct
    step: int
    head: bytes
    handles: tuple[int, ...]
    keys: tuple[int, ...]
    time: int
    """Place of the chosen time among the unpacked fields, of the first item; `status` likewise, 0 without one."""
    status: int
    registers: tuple[Register, ...]
    limits: tuple[float, ...]

    def decode(self, payload: bytes) -> tuple[Measurement, ...] | None:
        """The measurements; None when the frame needs a closer look."""
        fields, step, head, handles, keys, time, status, registers, limits = self
        values = fields.unpack(payload)
        stamps = values[time::step]
        if (
            values[0] != head
            or values[1::step] != handles
            or values[2::step] != keys
            or (status and any(values[status::step]))
            or not _TICKS_1970 < min(stamps) <= max(stamps) < _TICKS_1970 << 1
        ):
            return None
        if stamps[0] // _TICKS_MS == stamps[-1] // _TICKS_MS and stamps.count(stamps[0]) == len(stamps):
            found = _converted(registers, values[3::step], limits)
            if found is None:
                return None
            return (Measurement("", (stamps[0] - _TICKS_1970) // _TICKS_MS, found),)
        instants: dict[int, dict[str, int]] = {}
        for register, value, limit, stamp in zip(registers, values[3::step], limits, stamps, strict=True):
            if not -limit < (product := value * register.factor) < limit:
                return None
            result = round(product)
            if not -register.near < product - result < register.near or result < register.low:
                try:
                    result = register.convert(value, limit)
                except DecodeError:
                    return None
            instant = (stamp - _TICKS_1970) // _TICKS_MS
            if instant in instants:
                instants[instant][register.name] = result
            else:
                instants[instant] = {register.name: result}
        return tuple([Measurement("", instant, found) for instant, found in sorted(instants.items())])


def _converted(
    registers: tuple[Register, ...], values: tuple[float, ...], limits: tuple[float, ...]
) -> dict[str, int] | None:
    """The registers of one instant; None when one of the values needs a closer look."""
    found: dict[str, int] = {}
    for register, value, limit in zip(registers, values, limits, strict=True):
        if -limit < (product := value * register.factor) < limit:
            result = round(product)
            if -register.near < product - result < register.near and result >= register.low:
                found[register.name] = result
                continue
        try:
            found[register.name] = register.convert(value, limit)
        except DecodeError:
            return None
    return found


class _Readings:
    """Values of one frame, by instant."""

    def __init__(self) -> None:
        self._registers: dict[int, dict[str, int]] = {}
        self._flagged: set[int] = set()
        self._gaps: set[int] = set()
        self._first: DecodeError | None = None

    @property
    def refused(self) -> bool:
        """Whether a value could not be taken."""
        return self._first is not None

    def take(self, register: Register | None, item: Item, instant: int) -> None:
        try:
            if register is None:
                raise DecodeError("unknown_node", f"handle {item.handle} stands for no configured register", "nodes")
            if not 0 < instant <= MAX_INTEGER:
                raise DecodeError("bad_time", "time out of range", register.name)
            if item.status & BAD:
                raise DecodeError("bad_status", f"StatusCode 0x{item.status:08X}", register.name)
            if item.value is None:
                raise DecodeError("no_value", "there is no scalar number", register.name)
            value = register.convert(item.value, item.limit)
        except DecodeError as error:
            self._first = self._first or error
            if register is not None:
                self._flagged.add(instant)
            return
        if item.status & UNCERTAIN:
            self._flagged.add(instant)
        if item.status & OVERFLOW == OVERFLOW:
            self._gaps.add(instant)
        self._registers.setdefault(instant, {})[register.name] = value

    def measurements(self) -> tuple[Measurement, ...]:
        """By instant. Raises DecodeError with the first reason when not one value can be taken."""
        if not self._registers:
            raise self._first or DecodeError("no_value", "the frame holds no value")
        flagged, gaps = self._flagged, self._gaps
        return tuple(
            [
                Measurement(
                    "",
                    instant,
                    registers,
                    None,
                    Provenance.GATEWAY_ATTESTED,
                    (Notice.DEVICE_FLAGGED if instant in flagged else Notice.NONE)
                    | (Notice.GAP if instant in gaps else Notice.NONE),
                )
                for instant, registers in sorted(self._registers.items())
            ]
        )
