"""A document and a mapping make measurements; DecodeError for all else."""

from collections.abc import Iterable
from typing import Any, Final

from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance
from flexrelay_sdk.frame import DecodeError
from flexrelay_sdk.mapping.config import FieldMapping, Mapping, QualityMapping, TimeMapping
from flexrelay_sdk.mapping.conversion import Conversion
from flexrelay_sdk.mapping.instant import instant_ms
from flexrelay_sdk.mapping.path import MISSING, find, parse_path

MAX_ITEMS: Final = 1000
"""Readings in one document."""

_Judged = tuple[Provenance, Notice]
_GOOD: Final[_Judged] = (Provenance.GATEWAY_ATTESTED, Notice.NONE)
_FLAGGED: Final[_Judged] = (Provenance.GATEWAY_ATTESTED, Notice.DEVICE_FLAGGED)


class Mapper:
    """One `Mapping`, made ready. Measurements name no DID: the transport's identity counts."""

    def __init__(self, mapping: Mapping) -> None:
        self._items = parse_path(mapping.items) if mapping.items is not None else None
        self._registers = tuple(_Source(name, field) for name, field in sorted(mapping.fields.items()))
        self._time = mapping.observed_at
        self._time_steps = parse_path(mapping.observed_at.pointer) if mapping.observed_at is not None else ()
        self._seq = mapping.seq
        self._seq_steps = parse_path(mapping.seq) if mapping.seq is not None else ()
        self._quality = _Quality(mapping.quality) if mapping.quality is not None else None

    def measurements(self, document: Any, received_at: int) -> tuple[Measurement, ...]:
        """One, or as many as `items` holds. Raises DecodeError: missing_field, not_a_number, out_of_range, bad_time,
        bad_seq, bad_items, bad_quality."""
        if self._items is None:
            return (self.measurement(document, received_at),)
        items = find(document, self._items)
        if not isinstance(items, list) or not 1 <= len(items) <= MAX_ITEMS:
            raise DecodeError("bad_items", f"expected a list of 1 to {MAX_ITEMS} readings", "items")
        return tuple([self.measurement(item, received_at) for item in items])

    def measurement(self, document: Any, received_at: int) -> Measurement:
        """The reading in one item. Raises DecodeError."""
        registers: dict[str, int] = {}
        flat = type(document) is dict
        for source in self._registers:
            name = source.name
            value = document.get(name, MISSING) if flat and name is not None else find(document, source.steps)
            if type(value) is int and source.factor and source.low <= (result := value * source.factor) <= MAX_INTEGER:
                registers[source.register] = result  # nearly all values: whole numbers in whole units
            elif value is not MISSING and value is not None:
                registers[source.register] = source.convert(value)
            elif source.required:
                raise DecodeError("missing_field", f"register {source.register} stands nowhere", source.place)
        if not registers:
            raise DecodeError("missing_field", "none of the optional registers is there")
        observed_at = received_at if self._time is None else self._observed_at(document, self._time, received_at)
        seq: int | None = None
        if self._seq is not None:
            seq = find(document, self._seq_steps)
            if type(seq) is not int or not 0 <= seq <= MAX_INTEGER:
                raise DecodeError("bad_seq", "expected a non-negative integer", self._seq)
        if self._quality is None:
            return Measurement("", observed_at, registers, seq)
        provenance, notice = self._quality.judge(document)
        return Measurement("", observed_at, registers, seq, provenance, notice)

    def _observed_at(self, document: Any, mapping: TimeMapping, received_at: int) -> int:
        value = find(document, self._time_steps)
        if not mapping.required and (value is MISSING or value is None):
            return received_at
        return instant_ms(value, mapping.form, mapping.pointer)


class _Source(Conversion):
    """Where a register stands and how its integer comes about."""

    __slots__ = ("name", "required", "steps")

    def __init__(self, register: str, field: FieldMapping) -> None:
        super().__init__(register, field.unit, field.scale, field.negate, field.pointer)
        self.required = field.required
        self.steps = parse_path(field.pointer)
        self.name = self.steps[0] if len(self.steps) == 1 and type(self.steps[0]) is str else None
        """The one name of a path that is no longer: nearly all are."""


class _Quality:
    """What the source says about its value, as provenance and notice."""

    __slots__ = ("_known", "_place", "_steps")

    def __init__(self, mapping: QualityMapping) -> None:
        self._place = mapping.pointer
        self._steps = parse_path(mapping.pointer)
        known: dict[tuple[type, Any], _Judged | None] = dict.fromkeys(_kinds(mapping.refused), None)
        known |= dict.fromkeys(_kinds(mapping.substituted), (Provenance.SUBSTITUTED, Notice.NONE))
        known |= dict.fromkeys(_kinds(mapping.estimated), (Provenance.ESTIMATED, Notice.NONE))
        known |= dict.fromkeys(_kinds(mapping.good), _GOOD)
        self._known = known

    def judge(self, document: Any) -> _Judged:
        """Raises DecodeError for a state that is refused."""
        state = find(document, self._steps)
        if state is MISSING or state is None:
            return _GOOD
        if type(state) not in _STATES:
            return _FLAGGED
        judged = self._known.get((type(state), state), _FLAGGED)
        if judged is None:
            raise DecodeError("bad_quality", f"the source calls its value {str(state)[:40]!r}", self._place)
        return judged


_STATES: Final = (str, int, bool)


def _kinds(states: Iterable[Any]) -> list[tuple[type, Any]]:
    return [(type(state), state) for state in states]
