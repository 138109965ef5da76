"""Smart data models: what a reading or a market step looks like to an NGSI-LD platform.

`official` holds the models of smartdatamodels.org that we fill, `flexibility` our proposals in the same form,
`mapping` turns measurements into entities. Types are tables of attributes; an `Entity` is one value of such a type and
has two forms: normalized NGSI-LD (`to_normalized`, `from_normalized`) and keyValues (`to_key_values`).
"""

from flexrelay_schemas.entities.attribute import Attribute, EntityType, Kind
from flexrelay_schemas.entities.entity import Entity, EntityError, Quality, Value
from flexrelay_schemas.entities.flexibility import FLEXIBILITY_TYPES
from flexrelay_schemas.entities.mapping import (
    DEVICE_KINDS,
    DeviceInfo,
    Filling,
    attributes_of,
    device_entity,
    device_measurement,
    map_measurement,
)
from flexrelay_schemas.entities.official import OFFICIAL_TYPES

TYPES = {t.name: t for t in (*OFFICIAL_TYPES, *FLEXIBILITY_TYPES)}
"""Every entity type by name."""

__all__ = [
    "DEVICE_KINDS",
    "FLEXIBILITY_TYPES",
    "OFFICIAL_TYPES",
    "TYPES",
    "Attribute",
    "DeviceInfo",
    "Entity",
    "EntityError",
    "EntityType",
    "Filling",
    "Kind",
    "Quality",
    "Value",
    "attributes_of",
    "device_entity",
    "device_measurement",
    "map_measurement",
]
