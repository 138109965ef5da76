"""JSON Schemas of entity types, made from their attribute tables: the keyValues and the normalized form."""

from typing import Any, Final

from flexrelay_schemas.entities.attribute import Attribute, EntityType, Kind
from flexrelay_schemas.quality import Notice, Provenance

_URI: Final = {"type": "string", "pattern": ":"}
_INSTANT: Final = {
    "type": "string",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
}
_CONTEXT: Final = {"type": "array"}
_QUALITY: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "type": {"const": "Property"},
        "value": {"enum": [p.name.lower() for p in Provenance]},
        "notices": {
            "type": "object",
            "properties": {
                "type": {"const": "Property"},
                "value": {"type": "array", "items": {"enum": [n.name.lower() for n in Notice if n.name]}},
            },
            "required": ["type", "value"],
            "additionalProperties": False,
        },
    },
    "required": ["type", "value"],
    "additionalProperties": False,
}


def key_values_schema(entity_type: EntityType) -> dict[str, Any]:
    """The keyValues form; the official schemas describe this one."""
    properties = {a.name: _value(a) for a in entity_type.attributes}
    properties["quality"] = {"type": "object", "additionalProperties": {"type": "string"}}
    return _object(entity_type, properties)


def normalized_schema(entity_type: EntityType) -> dict[str, Any]:
    """The normalized NGSI-LD form with units, times and quality."""
    schema = _object(entity_type, {a.name: _node(a) for a in entity_type.attributes})
    schema["$defs"] = {"quality": _QUALITY}
    return schema


def _object(entity_type: EntityType, attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"id": _URI, "type": {"const": entity_type.name}, **attributes, "@context": _CONTEXT},
        "required": ["id", "type", *entity_type.required],
        "additionalProperties": False,
    }


def _value(attribute: Attribute) -> dict[str, Any]:
    schema: dict[str, Any]
    if attribute.kind is Kind.RELATIONSHIP:
        schema = {"type": "array", "items": _URI} if attribute.json_type == "array" else dict(_URI)
    elif attribute.enum:
        schema = {"enum": list(attribute.enum)}
    else:
        schema = {"type": attribute.json_type}
    if attribute.conversion is not None:
        schema["description"] = f"UN/CEFACT unit {attribute.conversion.unit_code}"
    return schema


def _node(attribute: Attribute) -> dict[str, Any]:
    properties: dict[str, Any] = {"type": {"const": attribute.kind.value}, attribute.kind.key: _value(attribute)}
    required = ["type", attribute.kind.key]
    if attribute.conversion is not None:
        properties["unitCode"] = {"const": attribute.conversion.unit_code}
        required.append("unitCode")
    properties["observedAt"] = _INSTANT
    properties["quality"] = {"$ref": "#/$defs/quality"}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
