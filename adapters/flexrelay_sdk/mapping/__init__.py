"""The declarative mapping that all adapters share: place in a document → register, unit, scale, time, quality.

`Mapping` is the configuration, `Mapper` applies it to a document that an adapter has decoded, `MappingCodec` to JSON
payloads, `Conversion` to one value where there is no document. Registers come out as exact integers.
"""

from flexrelay_sdk.mapping.config import (
    AttributeMapping,
    FieldMapping,
    JsonMapping,
    Mapping,
    QualityMapping,
    TimeMapping,
)
from flexrelay_sdk.mapping.conversion import Conversion, shortest, shortest_single
from flexrelay_sdk.mapping.instant import TimeForm, instant_ms
from flexrelay_sdk.mapping.json_codec import MappingCodec, parse_json, parse_json_at
from flexrelay_sdk.mapping.mapper import MAX_ITEMS, Mapper
from flexrelay_sdk.mapping.path import MISSING, Path, find, parse_path
from flexrelay_sdk.mapping.units import UNITS, Unit, units_of

__all__ = [
    "MAX_ITEMS",
    "MISSING",
    "UNITS",
    "AttributeMapping",
    "Conversion",
    "FieldMapping",
    "JsonMapping",
    "Mapper",
    "Mapping",
    "MappingCodec",
    "Path",
    "QualityMapping",
    "TimeForm",
    "TimeMapping",
    "Unit",
    "find",
    "instant_ms",
    "parse_json",
    "parse_json_at",
    "parse_path",
    "shortest",
    "shortest_single",
    "units_of",
]
