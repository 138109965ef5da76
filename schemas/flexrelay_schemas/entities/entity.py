"""One entity in its two forms: normalized NGSI-LD (ETSI GS CIM 009) and keyValues ("simplified")."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from math import isfinite
from typing import Any, Final, Self

from flexrelay_schemas.entities.attribute import Attribute, EntityType, Kind
from flexrelay_schemas.quality import Notice, Provenance

_PYTHON: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
}


class EntityError(ValueError):
    """The entity does not fit its type; the message names type, attribute and what is wrong."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Where a value comes from and what was noticed about it."""

    provenance: Provenance
    notice: Notice = Notice.NONE

    def normalized(self) -> dict[str, Any]:
        """The sub-property `quality`."""
        result: dict[str, Any] = {"type": "Property", "value": self.provenance.name.lower()}
        if self.notice:
            result["notices"] = {"type": "Property", "value": _notices(self.notice)}
        return result

    @classmethod
    def parse(cls, quality: Any) -> Self:
        """Inverse of `normalized`. Raises ValueError, KeyError, TypeError or AttributeError."""
        notice = Notice.NONE
        for name in quality.get("notices", {"value": []})["value"]:
            notice |= Notice[name.upper()]
        return cls(Provenance[quality["value"].upper()], notice)

    def text(self) -> str:
        """The short form of keyValues, e.g. "meter_signed" or "estimated late gap"."""
        return " ".join([self.provenance.name.lower(), *_notices(self.notice)])


@dataclass(frozen=True, slots=True)
class Value:
    """A value in the attribute's official unit, or the URI(s) of a relationship; `observed_at` is UTC ms."""

    value: Any
    observed_at: int | None = None
    quality: Quality | None = None


@dataclass(frozen=True)
class Entity:
    """A value of an entity type; attributes in any order. Building one checks names and JSON types."""

    type: EntityType
    id: str
    values: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if ":" not in self.id:
            raise EntityError(f"{self.type.name}: id {self.id[:80]!r} is not a URI")
        for name, value in self.values.items():
            _check(self.type, name, value.value)

    def missing(self) -> tuple[str, ...]:
        """Required attributes that are not there."""
        return tuple(name for name in self.type.required if name not in self.values)

    def to_normalized(self) -> dict[str, Any]:
        """The normalized form, attributes in the type's order."""
        result: dict[str, Any] = {"id": self.id, "type": self.type.name}
        for attribute in self.type.attributes:
            value = self.values.get(attribute.name)
            if value is not None:
                result[attribute.name] = _normalized(attribute, value)
        result["@context"] = list(self.type.context)
        return result

    def to_key_values(self) -> dict[str, Any]:
        """The keyValues form. What it cannot say beside a value stands in `quality`, by attribute name."""
        result: dict[str, Any] = {"id": self.id, "type": self.type.name}
        quality = {}
        for attribute in self.type.attributes:
            value = self.values.get(attribute.name)
            if value is not None:
                result[attribute.name] = value.value
                if value.quality is not None:
                    quality[attribute.name] = value.quality.text()
        if quality:
            result["quality"] = quality
        result["@context"] = list(self.type.context)
        return result

    @classmethod
    def from_normalized(cls, entity_type: EntityType, document: Mapping[str, Any]) -> Self:
        """Read the normalized form. Raises EntityError for what the type does not know or units it does not have."""
        if document.get("type") != entity_type.name:
            raise EntityError(f"type is {str(document.get('type'))[:80]!r}, not {entity_type.name!r}")
        identifier = document.get("id")
        if not isinstance(identifier, str):
            raise EntityError(f"{entity_type.name}: id is missing or not text")
        values = {}
        for name, node in document.items():
            if name not in ("id", "type", "@context"):
                values[name] = _value(entity_type, name, node)
        return cls(entity_type, identifier, values)


def timestamp(ms: int) -> str:
    """UTC milliseconds since 1970 as ISO 8601 with milliseconds and Z."""
    seconds, rest = divmod(ms, 1000)
    return f"{_second(seconds)}.{rest:03d}Z"


def instant(text: str) -> int:
    """Inverse of `timestamp`, for any ISO 8601 text with an offset. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _notices(notice: Notice) -> list[str]:
    return [flag.name.lower() for flag in notice if flag.name]


def _normalized(attribute: Attribute, value: Value) -> dict[str, Any]:
    node: dict[str, Any] = {"type": attribute.kind.value, attribute.kind.key: value.value}
    if attribute.conversion is not None:
        node["unitCode"] = attribute.conversion.unit_code
    if value.observed_at is not None:
        node["observedAt"] = timestamp(value.observed_at)
    if value.quality is not None:
        node["quality"] = value.quality.normalized()
    return node


def _value(entity_type: EntityType, name: str, node: Any) -> Value:
    attribute = entity_type.by_name.get(name)
    if attribute is None:
        raise EntityError(f"{entity_type.name} has no attribute {name[:80]!r}")
    where = f"{entity_type.name}.{name}"
    if not isinstance(node, Mapping) or node.get("type") != attribute.kind.value or attribute.kind.key not in node:
        raise EntityError(f"{where} is not a {attribute.kind.value} with {attribute.kind.key!r}")
    unit = attribute.conversion.unit_code if attribute.conversion else None
    if node.get("unitCode") != unit:
        raise EntityError(f"{where} has unitCode {node.get('unitCode')!r}; it is {unit!r}")
    unknown = set(node) - {"type", attribute.kind.key, "unitCode", "observedAt", "quality"}
    if unknown:
        raise EntityError(f"{where} has an unknown member {min(unknown)[:80]!r}")
    try:
        observed = instant(node["observedAt"]) if "observedAt" in node else None
        quality = Quality.parse(node["quality"]) if "quality" in node else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EntityError(f"{where}: observedAt or quality cannot be read: {error}") from None
    return Value(node[attribute.kind.key], observed, quality)


def _check(entity_type: EntityType, name: str, value: Any) -> None:
    attribute = entity_type.by_name.get(name)
    if attribute is None:
        raise EntityError(f"{entity_type.name} has no attribute {name[:80]!r}")
    where = f"{entity_type.name}.{name}"
    right = isinstance(value, _PYTHON[attribute.json_type])
    if not right or (isinstance(value, bool) and attribute.json_type == "number"):
        raise EntityError(f"{where} is a {type(value).__name__}, not of JSON type {attribute.json_type}")
    if isinstance(value, float) and not isfinite(value):
        raise EntityError(f"{where} is not a finite number")
    if attribute.enum and value not in attribute.enum:
        raise EntityError(f"{where} is {value!r}, not one of {', '.join(attribute.enum)}")
    if attribute.kind is Kind.RELATIONSHIP:
        for uri in [value] if isinstance(value, str) else value:
            if not isinstance(uri, str) or ":" not in uri:
                raise EntityError(f"{where} points to {str(uri)[:80]!r}, which is not a URI")
