"""SenML packs (RFC 8428) as LwM2M uses them (OMA Core §7.4.4): base name and time resolved, records out.

JSON and CBOR differ in labels only: text there, small integers here. A time below 2^28 is relative to now (§4.5.3).
"""

import base64
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

from flexrelay_adapters.lwm2m.formats.record import (
    MAX_RECORDS,
    FormatError,
    Path,
    Record,
    Value,
    checked,
    parse_path,
    path_text,
)

ABSOLUTE_S: Final = 2**28
_KNOWN_PATHS: Final = 8192


class Labels(NamedTuple):
    """Names of SenML's fields in one representation (RFC 8428 table 4)."""

    base_name: Any
    base_time: Any
    base_unit: Any
    base_value: Any
    version: Any
    name: Any
    unit: Any
    value: Any
    text: Any
    boolean: Any
    data: Any
    time: Any
    objlnk: Any


TEXT_LABELS: Final = Labels("bn", "bt", "bu", "bv", "bver", "n", "u", "v", "vs", "vb", "vd", "t", "vlo")
CBOR_LABELS: Final = Labels(-2, -3, -4, -5, -1, 0, 1, 2, 3, 4, 8, 6, "vlo")
_NUMBERS: Final = frozenset({int, float, Decimal})


class _Paths:
    """Paths of names seen before: devices send the same ones again and again. Bounded."""

    def __init__(self) -> None:
        self._known: dict[str, Path] = {}

    def of(self, name: str) -> Path:
        path = self._known.get(name)
        if path is None:
            path = parse_path(name)
            if len(self._known) >= _KNOWN_PATHS:
                self._known.clear()
            self._known[name] = path
        return path


_paths = _Paths()


def records_of(pack: Any, labels: Labels, now_s: float) -> list[Record]:
    """The records of a decoded pack. Raises FormatError for whatever is no SenML of LwM2M resources."""
    if type(pack) is not list or not 1 <= len(pack) <= MAX_RECORDS:
        raise FormatError("not_senml", f"a pack is a list of 1 to {MAX_RECORDS} records")
    n_label, t_label, v_label, u_label = labels.name, labels.time, labels.value, labels.unit
    base_name, base_unit = "", ""
    base_time: Any = 0
    base_value: Any = None
    known = _paths._known
    result: list[Record] = []
    for item in pack:
        if type(item) is not dict:
            raise FormatError("not_senml", "a record is not a map")
        if labels.base_name in item or labels.base_time in item or labels.base_unit in item:
            base_name = _text(item.get(labels.base_name, base_name))
            base_time = _number(item.get(labels.base_time, base_time))
            base_unit = _text(item.get(labels.base_unit, base_unit))
        if labels.base_value in item:
            base_value = _number(item[labels.base_value])
        name = item.get(n_label, "")
        if type(name) is not str:
            raise FormatError("not_senml", "a name is not a text")
        name = base_name + name
        path = known.get(name)
        if path is None:
            path = _paths.of(name)
        time_s: float | None = None
        if base_time or t_label in item:
            seconds = base_time + _number(item[t_label]) if t_label in item else base_time
            if seconds >= ABSOLUTE_S:
                time_s = float(seconds)
            elif seconds:
                time_s = now_s + float(seconds)
        value: Value
        if v_label in item:
            value = checked(item[v_label], path)
            if type(value) not in _NUMBERS or (type(value) is float and not math.isfinite(value)):
                raise FormatError("not_a_number", f"{path_text(path)} is no number")
            if base_value is not None:
                value = _sum(base_value, value, path)
        else:
            value = _other(item, labels)
            if value is None and base_value is not None:
                value = base_value
        unit = _text(item[u_label]) if u_label in item else base_unit
        result.append(Record(path, value, time_s, unit))
    return result


def _other(item: Mapping[Any, Any], labels: Labels) -> Value:
    """The value of a record that is no number; None where it has none (a composite read's request)."""
    if labels.text in item:
        return _text(item[labels.text])
    if labels.boolean in item:
        value = item[labels.boolean]
        if type(value) is not bool:
            raise FormatError("not_senml", "a boolean value is neither true nor false")
        return value
    if labels.data in item:
        data = item[labels.data]
        if type(data) is bytes:
            return data
        if type(data) is str:
            try:
                return base64.b64decode(data + "=" * (-len(data) % 4), altchars=b"-_", validate=True)
            except ValueError:
                raise FormatError("not_senml", "data is not base64url") from None
        raise FormatError("not_senml", "data is neither bytes nor base64url")
    if labels.objlnk in item:
        return _text(item[labels.objlnk])
    return None


def _sum(base: Any, value: Any, path: Path) -> Value:
    """Of two numbers, of which one may be a decimal fraction and the other a float."""
    try:
        if type(value) is Decimal or type(base) is Decimal:
            return Decimal(str(base)) + Decimal(str(value))
        total: Value = base + value
        return total
    except (ArithmeticError, ValueError):
        raise FormatError("not_a_number", f"{path_text(path)} and its base have no sum") from None


def _text(value: Any) -> str:
    if type(value) is not str:
        raise FormatError("not_senml", "a text was expected")
    return value


def _number(value: Any) -> Any:
    if type(value) not in _NUMBERS or not -1e15 < value < 1e15:  # also refuses NaN
        raise FormatError("bad_time", "a base or time is no number in range")
    return float(value) if type(value) is Decimal else value


def pack_of(records: Sequence[Record], labels: Labels) -> list[dict[Any, Any]]:
    """A pack without base fields; one record an item."""
    pack = []
    for record in records:
        item: dict[Any, Any] = {labels.name: path_text(record.path)}
        if record.time_s is not None:
            item[labels.time] = record.time_s
        if record.unit:
            item[labels.unit] = record.unit
        value = record.value
        if isinstance(value, bool):
            item[labels.boolean] = value
        elif isinstance(value, int | float):
            item[labels.value] = value
        elif isinstance(value, Decimal):
            item[labels.value] = float(value)
        elif isinstance(value, str):
            item[labels.text] = value
        elif isinstance(value, bytes):
            item[labels.data] = value
        pack.append(item)
    return pack
