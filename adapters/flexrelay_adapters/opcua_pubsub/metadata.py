"""DataSetMetaData (OPC 10000-14 §7.2.5.5.2, §6.2.3.2): what it tells of the mapped fields. Pure."""

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from flexrelay_schemas.canonical import canonical
from flexrelay_sdk import DecodeError

MAX_FIELDS: Final = 10_000
_ENGINEERING_UNITS: Final = "EngineeringUnits"
_DEEP: Final = 5
"""An EUInformation lies so deep in its Variant and ExtensionObject at most."""
_UNITS: Final[Mapping[str, str]] = {
    "JOU": "J", "KJO": "kJ", "3B": "MJ", "GV": "GJ", "WHR": "Wh", "KWH": "kWh", "MWH": "MWh",
    "WTT": "W", "KWT": "kW", "MAW": "MW", "D44": "var", "K5": "kvar", "KVR": "kvar",
    "2Z": "mV", "VLT": "V", "KVT": "kV", "4K": "mA", "AMP": "A", "P1": "%",
    "NX": "permille",
}  # fmt: skip
"""UN/CEFACT common codes, which an EUInformation's UnitId is made of (OPC 10000-8 §5.6.3.3)."""


class MetaData(NamedTuple):
    """`facts` as frames have them. `missing` are mapped fields that the DataSet does not have."""

    major: int
    minor: int
    facts: bytes
    missing: tuple[str, ...]


def metadata_of(document: Mapping[str, Any], mapped: Collection[str]) -> MetaData:
    """Of a message of the type ua-metadata. Raises DecodeError("not_metadata")."""
    told = document.get("MetaData")
    fields = told.get("Fields") if isinstance(told, dict) else None
    if not isinstance(told, dict) or not isinstance(fields, list) or len(fields) > MAX_FIELDS:
        raise DecodeError("not_metadata", "there is no MetaData with a list of Fields", "MetaData")
    version = told.get("ConfigurationVersion")
    version = version if isinstance(version, dict) else {}
    major, minor = (_whole(version.get(f"{part}Version", 0)) for part in ("Major", "Minor"))
    types: dict[str, int] = {}
    units: dict[str, str] = {}
    names = set()
    for field in fields:
        name = field.get("Name") if isinstance(field, dict) else None
        if not isinstance(name, str) or name not in mapped:
            continue
        names.add(name)
        kind = field.get("BuiltInType")
        if type(kind) is int and 0 < kind < 64:
            types[name] = kind
        unit = _unit(field.get("Properties"))
        if unit:
            units[name] = unit
    facts = {"major": major, "types": types, "units": units}
    return MetaData(major, minor, canonical(facts), tuple(sorted(set(mapped) - names)))


def _unit(properties: Any) -> str:
    """What the property EngineeringUnits says, "" when it says nothing that is known here."""
    for each in properties if isinstance(properties, list) else ():
        key = each.get("Key") if isinstance(each, dict) else ""
        name = key.get("Name") if isinstance(key, dict) else key
        # some encoders lose the key; nothing but the engineering units holds an EUInformation
        if name is None or (isinstance(name, str) and name.rpartition(":")[2].rpartition(";")[2] == _ENGINEERING_UNITS):
            code = _unit_id(each.get("Value"), _DEEP).to_bytes(4, "big").lstrip(b"\0")
            if code:
                return _UNITS.get(code.decode("ascii", "replace"), "")
    return ""


def _unit_id(value: Any, deep: int) -> int:
    """UnitId of the EUInformation somewhere in a Variant of either encoding; 0 for none."""
    if not isinstance(value, dict) or not deep:
        return 0
    found = value.get("UnitId")
    if type(found) is int and 0 < found < 2**31:
        return found
    return next((number for each in value.values() if (number := _unit_id(each, deep - 1))), 0)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**32:
        raise DecodeError("not_metadata", "a version is no UInt32", "ConfigurationVersion")
    return value
