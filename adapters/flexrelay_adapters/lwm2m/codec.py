"""LwM2M payloads to measurements: the records of one instant are one measurement, integers in the registers' units.

A frame's channel says how to read it: the path that the payload is of, and its content format, "/3305/0?ct=112" for a
notification, "/dp?ct=112" for a Send. So a dead letter can be read again from what is stored of it.
"""

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal, NamedTuple

import cbor2

from flexrelay_adapters.lwm2m import formats
from flexrelay_adapters.lwm2m.coap.codes import SENML_CBOR
from flexrelay_adapters.lwm2m.formats import FormatError, Path, Record, Value, parse_path
from flexrelay_adapters.lwm2m.formats.record import MAX_RECORDS
from flexrelay_adapters.lwm2m.formats.senml import ABSOLUTE_S
from flexrelay_adapters.lwm2m.formats.tlv import integer, number
from flexrelay_adapters.lwm2m.objects import FLOAT, QUANTITIES, SENSOR_UNITS, TEXTS, UNITS, Quantity
from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.reading import CUMULATIVE
from flexrelay_sdk import Decoded, DecodeError, Frame

SEND: Final = "/dp"
_CHANNELS: Final = 4096
_MAX_TEXT: Final = 40
_USUAL: Final = frozenset({-2, -3, 0, 2, 6})
"""Labels of base name, base time, name, value and time."""
_FAST_MOST: Final = 2**50
"""Up to here a product of floats is exact enough for the quick way."""


class Override(NamedTuple):
    """What one resource instance path means in this installation; `register` "" means nothing."""

    register: str
    unit: str
    negate: bool = False


class _Target(NamedTuple):
    """`numerator`/`denominator`/`sign` turn the value into the register's unit; `rank` decides between two."""

    register: str
    kind: str
    numerator: int
    denominator: int
    rank: int
    export: bool
    low: int
    is_float: bool
    is_text: bool


def channel(path: str, content_format: int) -> str:
    """The channel of a frame."""
    return f"{path}?ct={content_format}"


class Lwm2mCodec:
    """`flexrelay_sdk.Codec` for the energy objects. Measurements name no DID: the transport's identity counts.

    Without an override only instance 0 of an object counts: several instances are several meters, and which of them
    is the connection's is not for us to guess.
    """

    def __init__(self, overrides: Mapping[str, Override] | None = None) -> None:
        """`overrides` by resource path, e.g. "/3305/1/5800". Raises ValueError for one that cannot be."""
        self._targets: dict[Path, _Target | None] = {}
        self._fixed: dict[Path, _Target | None] = {}
        for text, override in (overrides or {}).items():
            self._fixed[parse_path(text)] = _overriding(text, override) if override.register else None
        self._channels: dict[str, tuple[int, Path]] = {}
        self._names: dict[str, _Target | Literal[False] | None] = {}

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError: not_cbor, not_senml, not_tlv, bad_path, not_a_number, out_of_range, no_measurement, …"""
        content_format, base = self._of_channel(frame.channel)
        received_at = frame.received_at
        if content_format == SENML_CBOR:
            quick = self._quick(frame.payload, received_at)
            if quick is not None:
                return Decoded(quick)
        try:
            records = formats.decode(content_format, frame.payload, base, received_at / 1000)
            decoded = Decoded(tuple(self._measurements(records, received_at)))
            if content_format == SENML_CBOR:
                self._learn(records)
            return decoded
        except FormatError as error:
            raise DecodeError(error.reason, error.message) from None

    def reads(self, channel_: str) -> bool:
        """Whether a channel is one of this codec's."""
        try:
            self._of_channel(channel_)
        except DecodeError:
            return False
        return True

    def _of_channel(self, text: str) -> tuple[int, Path]:
        found = self._channels.get(text)
        if found is None:
            path, mark, code = text.partition("?ct=")
            if not mark or not code.isascii() or not code.isdigit() or len(code) > 5:
                raise DecodeError("unknown_format", f"channel {text[:80]!r} names no content format", "channel")
            try:
                found = int(code), () if path == SEND else parse_path(path)
            except FormatError as error:
                raise DecodeError(error.reason, error.message, "channel") from None
            if len(self._channels) >= _CHANNELS:
                self._channels.clear()
            self._channels[text] = found
        return found

    def _quick(self, payload: bytes, received_at: int) -> tuple[Measurement, ...] | None:
        """The usual SenML CBOR in one go: numbers without units, each register once. None: take the long way, which
        does the same (a test holds the two together) and says what is wrong."""
        try:
            pack = cbor2.loads(payload)
        except Exception:
            return None
        if type(pack) is not list or len(pack) > MAX_RECORDS:
            return None
        names = self._names
        at = base_at = received_at
        base_time: int | float = 0
        base = ""
        group: dict[str, int] = {}
        groups = {at: group}
        try:
            for item in pack:
                if type(item) is not dict:
                    return None
                if len(item) == 2:
                    name, value = item[0], item[2]  # KeyError: something else than a name and a number
                    now = base_at
                else:
                    if not _USUAL.issuperset(item):
                        return None
                    value = item[2]
                    base = item.get(-2, base)
                    if -3 in item:
                        base_time = item[-3]
                        base_at = round(base_time * 1000)
                    name = item.get(0, "")
                    time_s = item.get(6)
                    now = round((base_time + time_s) * 1000) if time_s is not None else base_at
                if now != at:
                    if not (ABSOLUTE_S * 1000 <= now <= MAX_INTEGER) and now != received_at:
                        return None
                    at = now
                    group = groups.setdefault(at, {})
                target = names.get(base + name, self)
                if target is None:
                    if (type(value) is float or type(value) is int) and -1e15 < value < 1e15:
                        continue
                    return None
                if not isinstance(target, _Target):
                    return None  # not seen before, or only the long way knows what to do with it
                kind = type(value)
                if kind is float:
                    product = value * target.numerator
                    amount = round(product)
                    if abs(product - amount) > 0.499 and target.numerator != 1:  # near a tie
                        amount = _scaled(value, target.numerator, 1, target, ())
                elif kind is int:
                    amount = value * target.numerator
                else:
                    return None
                register = target.register
                if register in group or not target.low <= amount <= _FAST_MOST:
                    return None
                group[register] = amount
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        found = tuple([Measurement("", instant, registers) for instant, registers in groups.items() if registers])
        return found or None

    def _learn(self, records: list[Record]) -> None:
        """Names for the quick way, after the long one has taken them."""
        names = self._names
        if len(names) > _CHANNELS:
            names.clear()
        for path, _, _, _ in records:
            target = self._targets.get(path)
            simple = target is not None and not target.export and target.denominator == 1 and not target.is_text
            unit = len(path) == 3 and path[2] == SENSOR_UNITS
            names[formats.path_text(path)] = target if simple or (target is None and not unit) else False

    def _measurements(self, records: list[Record], received_at: int) -> list[Measurement]:
        groups: dict[int, dict[str, tuple[int, int]]] = {}
        exports: dict[tuple[int, str], tuple[int, int]] = {}
        targets = self._targets
        units: dict[Path, str] | None = None
        last_time: float | None = None
        at = received_at
        group = groups[at] = {}
        for path, value, time_s, unit in records:
            target = targets.get(path, self)  # self: not looked for yet
            if target is self:
                target = self._find(path)
            if target is None or value is None:
                continue
            assert isinstance(target, _Target)
            if time_s != last_time:
                last_time = time_s
                at = received_at if time_s is None else round(time_s * 1000)
                if not 0 < at <= MAX_INTEGER:
                    raise DecodeError("bad_time", "time out of range")
                found = groups.get(at)
                group = groups[at] = {} if found is None else found
            numerator, denominator = target.numerator, target.denominator
            if not unit and path[2] == 5700:
                if units is None:
                    units = _sensor_units(records)
                unit = units.get(path[:2], "")
            if unit:
                scale = UNITS.get(unit)
                if scale is None or scale[0] != target.kind:
                    raise DecodeError("bad_unit", f"{formats.path_text(path)} cannot be in {unit[:20]!r}")
                if target.numerator > 0:
                    _, numerator, denominator = scale
                else:
                    numerator, denominator = -scale[1], scale[2]
            amount = _scaled(value, numerator, denominator, target, path)
            register = target.register
            if target.export:
                exports[at, register] = (target.rank, amount)
                continue
            before = group.get(register)
            if before is None or target.rank <= before[0]:
                group[register] = (target.rank, amount)
        for (instant, register), (rank, amount) in exports.items():
            group = groups[instant]
            imported = group.get(register)
            if imported is not None and imported[0] == rank:
                group[register] = (rank, imported[1] - amount)
            elif imported is None and amount > 0:  # what flows in one direction does not flow in the other
                group[register] = (rank, -amount)
        result = [
            Measurement("", instant, {name: amount for name, (_, amount) in sorted(found.items())})
            for instant, found in groups.items()
            if found
        ]
        if not result:
            raise DecodeError("no_measurement", f"none of {len(records)} resources is a measured quantity")
        return result

    def _find(self, path: Path) -> _Target | None:
        if path in self._fixed:
            target = self._fixed[path]
        else:
            target = None
            if len(path) == 3 and path[1] == 0:
                quantity = QUANTITIES.get((path[0], path[2]))
                if quantity is not None:
                    target = _target(quantity, path)
        if len(self._targets) >= _CHANNELS:
            self._targets.clear()
        self._targets[path] = target
        return target


def _target(quantity: Quantity, path: Path, sign: int = 1) -> _Target:
    kind, numerator, denominator = UNITS[quantity.unit]
    key = (path[0], path[2])
    return _Target(
        quantity.register,
        kind,
        sign * numerator,
        denominator,
        quantity.rank,
        quantity.export,
        0 if quantity.register in CUMULATIVE else -MAX_INTEGER,
        key in FLOAT,
        key in TEXTS,
    )


def _overriding(text: str, override: Override) -> _Target:
    path = parse_path(text)
    if len(path) != 3:
        raise ValueError(f"{text}: an override is for one resource, /object/instance/resource")
    kind = override.register.rpartition("_")[2]
    if override.unit not in UNITS or UNITS[override.unit][0] != kind:
        raise ValueError(f"{text}: register {override.register} cannot be given in {override.unit!r}")
    quantity = QUANTITIES.get((path[0], path[2]))
    rank = quantity.rank if quantity is not None else 0
    target = _target(Quantity(override.register, override.unit, rank), path, -1 if override.negate else 1)
    return target if quantity is not None else target._replace(is_float=True)


def _sensor_units(records: list[Record]) -> dict[Path, str]:
    """The unit that an object instance names for its value."""
    return {
        record.path[:2]: value
        for record in records
        if len(record.path) == 3 and record.path[2] == SENSOR_UNITS and (value := _as_text(record.value)) in UNITS
    }


def _as_text(value: Value) -> str:
    """A text as it came: as such, or in TLV as bytes; "" for all else."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _scaled(value: Value, numerator: int, denominator: int, target: _Target, path: Path) -> int:
    """value × numerator / denominator, rounded half to even. Raises DecodeError."""
    if type(value) is bytes:  # TLV: the type is the resource's
        value = _as_text(value) if target.is_text else number(value) if target.is_float else integer(value)
    if type(value) is str:
        value = _decimal(value, path)
    if type(value) is int:
        result = value * numerator if denominator == 1 else round(Decimal(value) * numerator / denominator)
    elif type(value) is float:
        if not math.isfinite(value) or abs(value) > 1e16:
            raise DecodeError("out_of_range", f"{formats.path_text(path)} is {value}")
        product = value * numerator / denominator
        result = round(product)
        if abs(abs(product - result) - 0.5) < 1e-3:  # near a tie the decimal text decides, not the binary fraction
            result = round(Decimal(repr(value)) * numerator / denominator)
    elif type(value) is Decimal:
        if not value.is_finite() or not -20 < value.adjusted() < 17:
            raise DecodeError("out_of_range", f"{formats.path_text(path)} is out of range")
        result = round(value * numerator / denominator)
    else:
        raise DecodeError("not_a_number", f"{formats.path_text(path)} is {type(value).__name__}")
    if not target.low <= result <= MAX_INTEGER:
        raise DecodeError("out_of_range", f"{formats.path_text(path)}: {target.register} would be {str(result)[:30]}")
    return result


def _decimal(text: str, path: Path) -> Decimal:
    if len(text) <= _MAX_TEXT:
        try:
            return Decimal(text.strip())
        except ArithmeticError:
            pass
    raise DecodeError("not_a_number", f"{formats.path_text(path)} is {text[:40]!r}")
