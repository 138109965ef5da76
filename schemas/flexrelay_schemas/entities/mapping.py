"""From measurements to entities: which register becomes which attribute of which model.

Signs: registers are positive for withdrawal. Models of consumption keep that; `PhotovoltaicMeasurement.activePower` is
what the plant produces, so its sign turns. One voltage or current register is taken as phase L1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

from flexrelay_schemas.entities import official
from flexrelay_schemas.entities.attribute import Attribute, EntityType
from flexrelay_schemas.entities.entity import Entity, Quality, Value, timestamp
from flexrelay_schemas.entities.units import AMPERE, KILOWATT_HOUR, PERCENT, VAR, VOLT, WATT, Conversion
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance

DEVICE_KINDS: Final = ("meter", "three_phase_meter", "smart_meter", "pv", "battery", "ev")


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What the registry knows of a device and a measurement does not say.

    `location` is (longitude, latitude) in degrees; `metering_started` is UTC ms; `static` holds further attributes of
    the device's model as plain JSON values in official units (a PV plant's reference `temperature`, a charging
    station's `socketType`, `capacity`, `allowedVehicleType`). Nothing that is not known is made up: `missing` tells
    what the model requires and nobody has said, and `check` what cannot be mapped; ask both when a device registers.
    """

    did: str
    kind: str
    location: tuple[float, float] | None = None
    phases: int = 1
    metering_started: int | None = None
    static: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raises ValueError for a record by which no measurement can be mapped."""
        shape = _shape(self.kind)
        if self.phases not in (1, 3):
            raise ValueError(f"{self.did} has {self.phases} phases; it is 1 or 3")
        if self.location is not None:
            longitude, latitude = self.location
            if not (-180 <= longitude <= 180 and -90 <= latitude <= 90):
                raise ValueError(f"{self.did}: location {self.location} is not (longitude, latitude) in degrees")
        Entity(shape.type, self.did, {name: Value(value) for name, value in self.static.items()})

    def missing(self) -> tuple[str, ...]:
        """Required attributes of its model that neither this record nor the usual registers of its kind supply."""
        shape = _shape(self.kind)
        given = {"dateObserved", "phaseType", *shape.references, *self.static}
        given |= {name for name, _, _ in shape.registers.values()}
        if self.location is not None:
            given.add("location")
        if self.metering_started is not None:
            given.add("dateEnergyMeteringStarted")
        return tuple(name for name in shape.type.required if name not in given)


@dataclass(frozen=True, slots=True)
class _Shape:
    """How one kind of device is mapped: register → (attribute, unit, form)."""

    type: EntityType
    observed: str
    """The attribute that holds the time of observation, "" when the model has none."""
    references: tuple[str, ...]
    device_type: str
    registers: Mapping[str, tuple[str, Conversion, Callable[[Conversion, int], Any]]]


def _plain(conversion: Conversion, value: int) -> Any:
    return conversion.number(value)


def _turned(conversion: Conversion, value: int) -> Any:
    return conversion.number(-value)


def _phase(conversion: Conversion, value: int) -> Any:
    return {"L1": conversion.number(value)}


def _unit(entity_type: EntityType, name: str) -> Conversion:
    conversion = entity_type.by_name[name].conversion
    if conversion is None:
        raise ValueError(f"{entity_type.name}.{name} has no unit")
    return conversion


def _make(entity_type: EntityType, observed: str, reference: str, device_type: str, **names: tuple[str, Any]) -> _Shape:
    registers = {register: (name, _unit(entity_type, name), form) for register, (name, form) in names.items()}
    return _Shape(entity_type, observed, (reference,) if reference else (), device_type, registers)


_ENERGY: Final = {
    "import_j": ("totalActiveEnergyImport", _plain),
    "export_j": ("totalActiveEnergyExport", _plain),
}
_METER: Final = {
    **_ENERGY,
    "power_w": ("totalActivePower", _plain),
    "reactive_var": ("totalReactivePower", _plain),
    "voltage_mv": ("phaseVoltage", _phase),
    "current_ma": ("current", _phase),
}

_SHAPES: Final[Mapping[str, _Shape]] = {
    "meter": _make(official.AC_MEASUREMENT, "dateObserved", "refDevice", "Device", **_METER),
    "three_phase_meter": _make(official.THREE_PHASE_AC_MEASUREMENT, "dateObserved", "refDevice", "Device", **_METER),
    "smart_meter": _make(
        official.SMART_METERING_OBSERVATION,
        "",
        "refDevice",
        "Device",
        **{**_METER, "import_j": ("totalConsumption", _plain)},
    ),
    "pv": _make(
        official.PHOTOVOLTAIC_MEASUREMENT,
        "dateObserved",
        "refPhotovoltaicDevice",
        "PhotovoltaicDevice",
        **_ENERGY,
        power_w=("activePower", _turned),
        reactive_var=("reactivePower", _plain),
        voltage_mv=("phaseVoltage", _phase),
        current_ma=("current", _plain),
    ),
    "battery": _make(
        official.STORAGE_BATTERY_MEASUREMENT,
        "dateObserved",
        "refStorageBatteryDevice",
        "StorageBatteryDevice",
        **_ENERGY,
        power_w=("activePower", _plain),
        reactive_var=("reactivePower", _plain),
        voltage_mv=("phaseVoltage", _phase),
        current_ma=("current", _plain),
        soc_permille=("stateOfCharge", _plain),
    ),
    "ev": _make(
        official.EV_CHARGING_STATION,
        "observationDateTime",
        "",
        "EVChargingStation",
        **_ENERGY,
        power_w=("powerConsumption", _plain),
        reactive_var=("totalReactivePower", _plain),
        voltage_mv=("phaseVoltage", _phase),
        current_ma=("current", _phase),
        soc_permille=("stateOfCharge", _plain),
    ),
}


def map_measurement(device_kind: str, measurement: Measurement, device: DeviceInfo | None = None) -> dict[str, Any]:
    """The normalized NGSI-LD entity of a measurement.

    The same document as `Entity.to_normalized`, built without the checks, for speed; parts of it are shared between
    calls, so it is to be read and written out, not changed. Raises ValueError for a kind of device that is none of
    DEVICE_KINDS or not the registered one.
    """
    shape = _shape(device_kind)
    if device is not None and device.kind != device_kind:
        raise ValueError(f"{device.did} is registered as {device.kind}, not {device_kind}")
    entity_type = shape.type
    observed_at = timestamp(measurement.observed_at)
    quality = _quality(measurement.provenance, measurement.notice)
    scid = measurement.did.rpartition(":")[2]
    entity: dict[str, Any] = {"id": f"urn:ngsi-ld:{entity_type.name}:{scid}", "type": entity_type.name}
    if device is not None:
        _describe(entity, entity_type, device)
    if shape.observed:
        entity[shape.observed] = {"type": "Property", "value": observed_at}
    if entity_type is official.AC_MEASUREMENT:
        three = device is not None and device.phases == 3
        entity["phaseType"] = {"type": "Property", "value": "threePhase" if three else "singlePhase"}
    for name in shape.references:
        entity[name] = _reference(entity_type.by_name[name], f"urn:ngsi-ld:{shape.device_type}:{scid}")
    registers = measurement.registers
    for register, (name, conversion, form) in shape.registers.items():
        value = registers.get(register)
        if value is not None:
            entity[name] = {
                "type": "Property",
                "value": form(conversion, value),
                "unitCode": conversion.unit_code,
                "observedAt": observed_at,
                "quality": quality,
            }
    if entity_type is official.STORAGE_BATTERY_MEASUREMENT and "power_w" in registers:
        power = registers["power_w"]
        entity["batteryStatus"] = {
            "type": "Property",
            "value": "consumingEnergy" if power > 0 else "givingEnergy" if power < 0 else "standby",
            "observedAt": observed_at,
            "quality": quality,
        }
    entity["@context"] = entity_type.context
    return entity


class Filling(NamedTuple):
    """The register behind an attribute, the attribute's unit (UN/CEFACT), and whether the model counts the other way
    round (positive = what a plant produces)."""

    register: str
    unit_code: str
    turned: bool


def attributes_of(device_kind: str) -> dict[str, Filling]:
    """The measured attributes of a kind of device, by name. Raises ValueError for an unknown kind."""
    return {
        name: Filling(register, conversion.unit_code, form is _turned)
        for register, (name, conversion, form) in _shape(device_kind).registers.items()
    }


def device_measurement(measurement: Measurement, register: str) -> Entity:
    """One register of any device as a DeviceMeasurement, for what no special model fits. Raises KeyError."""
    conversion = _GENERIC[register]
    scid = measurement.did.rpartition(":")[2]
    quality = Quality(measurement.provenance, measurement.notice)
    number = conversion.number(measurement.registers[register])
    values = {
        "dateObserved": Value(timestamp(measurement.observed_at)),
        "refDevice": Value(f"urn:ngsi-ld:Device:{scid}"),
        "controlledProperty": Value(register.rpartition("_")[0]),
        "measurementType": Value(register),
        "numValue": Value(number, measurement.observed_at, quality),
        "unit": Value(conversion.unit_code),
    }
    return Entity(official.DEVICE_MEASUREMENT, f"urn:ngsi-ld:DeviceMeasurement:{scid}:{register}", values)


def device_entity(device: DeviceInfo, *, name: str = "", protocols: tuple[str, ...] = ()) -> Entity:
    """The Device itself: what it is, controls and speaks. Raises ValueError for an unknown kind."""
    _shape(device.kind)
    controlled = ["power", "energy", "batterySupply"] if device.kind == "battery" else ["power", "energy"]
    category = ["meter"] if device.kind.endswith("meter") else ["actuator", "sensor"]
    values = {"controlledProperty": Value(controlled), "deviceCategory": Value(category)}
    if name:
        values["name"] = Value(name)
    if protocols:
        values["supportedProtocol"] = Value(list(protocols))
    if device.location is not None:
        values["location"] = Value({"type": "Point", "coordinates": list(device.location)})
    return Entity(official.DEVICE, f"urn:ngsi-ld:Device:{device.did.rpartition(':')[2]}", values)


_GENERIC: Final[Mapping[str, Conversion]] = {
    "import_j": KILOWATT_HOUR,
    "export_j": KILOWATT_HOUR,
    "power_w": WATT,
    "reactive_var": VAR,
    "voltage_mv": VOLT,
    "current_ma": AMPERE,
    "soc_permille": PERCENT,
}


@lru_cache(maxsize=256)
def _quality(provenance: Provenance, notice: Notice) -> dict[str, Any]:
    return Quality(provenance, notice).normalized()


def _shape(kind: str) -> _Shape:
    shape = _SHAPES.get(kind)
    if shape is None:
        raise ValueError(f"device kind {kind[:40]!r} is unknown; known are {', '.join(DEVICE_KINDS)}")
    return shape


def _reference(attribute: Attribute, uri: str) -> dict[str, Any]:
    target = [uri] if attribute.json_type == "array" else uri
    return {"type": attribute.kind.value, attribute.kind.key: target}


def _describe(entity: dict[str, Any], entity_type: EntityType, device: DeviceInfo) -> None:
    known = entity_type.by_name
    if device.location is not None:
        point = {"type": "Point", "coordinates": list(device.location)}
        entity["location"] = {"type": "GeoProperty", "value": point}
    if device.metering_started is not None and "dateEnergyMeteringStarted" in known:
        entity["dateEnergyMeteringStarted"] = {"type": "Property", "value": timestamp(device.metering_started)}
    for name, value in device.static.items():
        attribute = known.get(name)
        if attribute is None:
            raise ValueError(f"{entity_type.name} has no attribute {name[:80]!r} (static attributes of {device.did})")
        node: dict[str, Any] = {"type": attribute.kind.value, attribute.kind.key: value}
        if attribute.conversion is not None:
            node["unitCode"] = attribute.conversion.unit_code
        entity[name] = node
