"""Frames of polls → measurements. What does not depend on a frame's values is made once for each head."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from flexrelay_adapters.modbus.config import DeviceSection, ModbusConfig, RegisterSource
from flexrelay_adapters.modbus.frame import Found, Head, head_length, open_head
from flexrelay_adapters.modbus.refusals import exception_name
from flexrelay_adapters.modbus.sunspec import FLAGS, point, points, text_of
from flexrelay_adapters.modbus.sunspec.models import MAX_EXPONENT
from flexrelay_adapters.modbus.sunspec.reading import choices
from flexrelay_adapters.modbus.values import Format, Span
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance
from flexrelay_sdk import Decoded, DecodeError, Frame
from flexrelay_sdk.mapping import Conversion, Unit, shortest_single

_SHAPES: Final = 4096
_SCALE: Final = Format("s16", absent=(-0x8000,))


class _Place(NamedTuple):
    """A number and its byte offset among the registers of a frame."""

    format: Format
    offset: int

    def read(self, data: bytes) -> int | float | None:
        return self.format.read(data, self.offset)


class _Candidate:
    """One place that a register can come from."""

    __slots__ = ("_by_exponent", "_negate", "_register", "_scale", "_scale_at", "_single", "_unit", "_value")

    def __init__(
        self, register: str, value: _Place, unit: Unit, scale: int, negate: bool, scale_at: _Place | None
    ) -> None:
        self._register, self._unit, self._scale, self._negate = register, unit, scale, negate
        self._value, self._scale_at = value, scale_at
        self._single = value.format.kind == "float32"
        self._by_exponent: dict[int, Conversion] = {}

    def convert(self, data: bytes) -> int | None:
        """None: not implemented. Raises DecodeError."""
        value = self._value.read(data)
        if value is None:
            return None
        exponent = 0
        if self._scale_at is not None:
            told = self._scale_at.read(data)
            if told is None:
                return None
            if not -MAX_EXPONENT <= told <= MAX_EXPONENT:
                raise DecodeError("bad_scale", f"a scale factor of {told} is none", self._register)
            exponent = int(told)
        conversion = self._by_exponent.get(exponent)
        if conversion is None:
            conversion = Conversion(self._register, self._unit, self._scale + exponent, self._negate, self._register)
            self._by_exponent[exponent] = conversion
        if self._single:
            return conversion.convert(shortest_single(float(value), self._register))
        return conversion.convert(value)


class _Layout:
    """Where the blocks of a head lie among the registers."""

    def __init__(self, head: Head) -> None:
        self._blocks = []
        self.refusals: list[int] = []
        offset = 0
        for block in head.blocks:
            self._blocks.append((block.span, block.exception, offset))
            if block.exception:
                self.refusals.append(block.exception)
            else:
                offset += 2 * block.span.size
        self.size = offset

    def place(self, span: Span) -> int | None:
        """The byte offset of registers that were read, None when the device refused them or nobody asked."""
        for block, exception, offset in self._blocks:
            if block.table == span.table and block.address <= span.address and span.end <= block.end and not exception:
                return offset + 2 * (span.address - block.address)
        return None

    def asked(self, span: Span) -> bool:
        return any(
            b.table == span.table and b.address <= span.address and span.end <= b.end for b, _, _ in self._blocks
        )

    def number(self, span: Span, form: Format) -> _Place | None:
        offset = self.place(span)
        return None if offset is None else _Place(form, offset)


class _Field(NamedTuple):
    register: str
    candidates: tuple[_Candidate, ...]
    required: bool


class _Shape(NamedTuple):
    """What frames of one head are made of."""

    size: int
    serial: str
    serial_at: int
    """Byte offset, -1 when it is not read."""
    serial_size: int
    models: tuple[tuple[int, int], ...]
    """(Byte offset, model) of the ID registers."""
    fields: tuple[_Field, ...]
    flags: tuple[tuple[_Place, frozenset[int] | None], ...]
    refusals: tuple[int, ...]

    def measurement(self, data: bytes, received_at: int) -> Measurement:
        """Raises DecodeError."""
        if len(data) != self.size:
            raise DecodeError("cut_off", f"{len(data)} bytes of registers instead of {self.size}", "blocks")
        if self.serial and self.serial_at >= 0:
            told = text_of(data[self.serial_at : self.serial_at + self.serial_size])
            if told != self.serial:
                raise DecodeError(
                    "wrong_serial", f"the device calls itself {told[:64]!r}, not {self.serial!r}", "serial"
                )
        for offset, model in self.models:
            if int.from_bytes(data[offset : offset + 2], "big") != model:
                raise DecodeError("layout_changed", f"model {model} is not where it was", "models")
        registers: dict[str, int] = {}
        flagged = bool(self.refusals)
        first: DecodeError | None = None
        for register, candidates, required in self.fields:
            try:
                for candidate in candidates:
                    value = candidate.convert(data)
                    if value is not None:
                        registers[register] = value
                        break
                else:
                    flagged = flagged or required
            except DecodeError as error:
                first, flagged = first or error, True
        if not registers:
            if first is not None:
                raise first
            if self.refusals:
                raise DecodeError(
                    "modbus_exception", f"the device answers {exception_name(self.refusals[0])}", "blocks"
                )
            raise DecodeError("not_implemented", "the device implements none of the values that were asked for")
        for place, bad in self.flags:
            state = place.read(data)
            flagged = flagged or (state is not None and (bool(state) if bad is None else state in bad))
        notice = Notice.DEVICE_FLAGGED if flagged else Notice.NONE
        return Measurement("", received_at, registers, None, Provenance.GATEWAY_ATTESTED, notice)


class ModbusCodec:
    """`Codec` of the frames of `flexrelay_adapters.modbus.frame`; pure, without the Modbus library."""

    def __init__(self, config: ModbusConfig) -> None:
        self._plans: Mapping[bytes, DeviceSection] = {device.plan: device for device in config.devices.values()}
        self._shapes: dict[bytes, _Shape] = {}

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError: cut_off, unknown_version, bad_layout, unknown_plan, wrong_serial, layout_changed,
        modbus_exception, not_implemented, bad_scale, not_a_number, out_of_range."""
        payload = frame.payload
        length = head_length(payload)
        head = payload[:length]
        shape = self._shapes.get(head)
        if shape is None:
            shape = self._shape(open_head(head))
            if len(self._shapes) >= _SHAPES:
                self._shapes.clear()
            self._shapes[head] = shape
        return Decoded((shape.measurement(payload[length:], frame.received_at),))

    def _shape(self, head: Head) -> _Shape:
        device = self._plans.get(head.plan)
        if device is None:
            raise DecodeError("unknown_plan", "the device's registers are configured otherwise now", "plan")
        layout = _Layout(head)
        serial_at = layout.place(head.serial_at) if head.serial_at.size else None
        models: tuple[tuple[int, int], ...] = ()
        flags: tuple[tuple[_Place, frozenset[int] | None], ...] = ()
        if device.sunspec is None:
            fields = _plain(device.registers, layout)
        else:
            fields, flags = _sunspec(device.sunspec, device.negate, head.models, layout)
            ids = [(layout.place(Span("holding", found.address, 2)), found.model) for found in head.models]
            models = tuple((offset, model) for offset, model in ids if offset is not None)
        if not fields:
            raise DecodeError("bad_layout", "none of the configured registers was asked for", "blocks")
        return _Shape(
            layout.size, head.serial, -1 if serial_at is None else serial_at, 2 * head.serial_at.size, models, fields,
            flags, tuple(layout.refusals),
        )  # fmt: skip


def _plain(registers: Mapping[str, RegisterSource], layout: _Layout) -> tuple[_Field, ...]:
    fields = []
    for register, source in sorted(registers.items()):
        if not layout.asked(source.span):
            continue  # read at another interval
        value = layout.number(source.span, source.format)
        scale_at = None if source.scale_at is None else layout.number(Span(source.table, source.scale_at, 1), _SCALE)
        candidates: tuple[_Candidate, ...] = ()
        if value is not None and (source.scale_at is None or scale_at is not None):
            candidates = (_Candidate(register, value, source.unit, source.scale, source.negate, scale_at),)
        fields.append(_Field(register, candidates, source.required))
    return tuple(fields)


def _sunspec(
    kind: str, negate: bool, models: tuple[Found, ...], layout: _Layout
) -> tuple[tuple[_Field, ...], tuple[tuple[_Place, frozenset[int] | None], ...]]:
    fields = []
    used: dict[int, int] = {}
    for register, chosen in sorted(choices(kind, models).items()):
        candidates = []
        for choice, address in chosen:
            each = point(choice.model, choice.point)
            value = layout.number(each.span(address), each.format)
            scale_at = None
            if each.scale in points(choice.model):
                scale_at = layout.number(point(choice.model, each.scale).span(address), _SCALE)
                if scale_at is None:
                    continue
            if value is None:
                continue
            turned = choice.negate != (negate and register in ("power_w", "reactive_var"))
            used[choice.model] = address
            candidates.append(_Candidate(register, value, choice.unit, 0, turned, scale_at))
        fields.append(_Field(_swapped(register) if negate else register, tuple(candidates), register == "power_w"))
    flags = []
    for model, address in sorted(used.items()):
        for name, bad in FLAGS.get(model, ()):
            state = layout.number(point(model, name).span(address), point(model, name).format)
            if state is not None:
                flags.append((state, bad))
    return tuple(fields), tuple(flags)


def _swapped(register: str) -> str:
    return {"import_j": "export_j", "export_j": "import_j"}.get(register, register)
