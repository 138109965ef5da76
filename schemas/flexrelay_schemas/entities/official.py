"""The models of smartdatamodels.org that flexrelay fills: the attributes that we use of each, by their official names.

Checked attribute by attribute against the official list (name, NGSI-LD kind, JSON type, IRI, unit, required) in the
tests. What a model has no attribute for, as the energy registers of inverters, batteries and charging stations, is lent
by another official one.
"""

from typing import Final

from flexrelay_schemas.entities.attribute import Attribute, EntityType, JsonType, Kind
from flexrelay_schemas.entities.units import (
    AMPERE,
    CELSIUS,
    KILOVAR,
    KILOWATT,
    KILOWATT_HOUR,
    PERCENT,
    VAR,
    VOLT,
    WATT,
    Conversion,
)

_ROOT = "https://smartdatamodels.org/"
_GENERAL = {
    "dateObserved": _ROOT + "dateObserved",
    "name": _ROOT + "name",
    "location": "https://uri.etsi.org/ngsi-ld/location",
    "status": "https://uri.etsi.org/ngsi-ld/status",
}


def _attribute(
    subject: str,
    name: str,
    json_type: JsonType,
    conversion: Conversion | None = None,
    *,
    kind: Kind = Kind.PROPERTY,
    required: bool = False,
    enum: tuple[str, ...] = (),
    lent_by: str = "",
    observed: bool | None = None,
) -> Attribute:
    iri = _GENERAL.get(name, f"{_ROOT}{subject}/{name}")
    measured = conversion is not None if observed is None else observed
    return Attribute(name, json_type, iri, kind, conversion, required, measured, enum, lent_by)


def _location(required: bool = False) -> Attribute:
    return _attribute("", "location", "object", kind=Kind.GEO, required=required)


def _lent(name: str, json_type: JsonType, conversion: Conversion) -> Attribute:
    return _attribute(_ENERGY, name, json_type, conversion, lent_by="ACMeasurement")


_ENERGY: Final = "dataModel.Energy"
_DEVICE: Final = "dataModel.Device"
_GREEN: Final = "dataModel.GreenEnergy"
_BATTERY: Final = "dataModel.Battery"
_TRANSPORT: Final = "dataModel.Transportation"

_TOTALS = (
    _attribute(_ENERGY, "totalActivePower", "number", WATT),
    _attribute(_ENERGY, "totalReactivePower", "number", VAR),
    _attribute(_ENERGY, "totalActiveEnergyImport", "number", KILOWATT_HOUR),
    _attribute(_ENERGY, "totalActiveEnergyExport", "number", KILOWATT_HOUR),
    _attribute(_ENERGY, "phaseVoltage", "object", VOLT),
    _attribute(_ENERGY, "current", "object", AMPERE),
)
_LENT_ENERGY = (
    _lent("totalActiveEnergyImport", "number", KILOWATT_HOUR),
    _lent("totalActiveEnergyExport", "number", KILOWATT_HOUR),
)

AC_MEASUREMENT: Final = EntityType(
    "ACMeasurement",
    _ENERGY,
    (
        _location(required=True),
        _attribute(_ENERGY, "dateObserved", "string", required=True),
        _attribute(_ENERGY, "phaseType", "string", required=True, enum=("singlePhase", "threePhase")),
        _attribute(_ENERGY, "refDevice", "array"),
        _attribute(_ENERGY, "dateEnergyMeteringStarted", "string"),
        *_TOTALS,
    ),
)

THREE_PHASE_AC_MEASUREMENT: Final = EntityType(
    "ThreePhaseAcMeasurement",
    _ENERGY,
    (
        _location(),
        _attribute(_ENERGY, "dateObserved", "string", lent_by="ACMeasurement"),
        _attribute(_ENERGY, "refDevice", "array", kind=Kind.RELATIONSHIP),
        _attribute(_ENERGY, "dateEnergyMeteringStarted", "string"),
        *_TOTALS,
    ),
)

DEVICE: Final = EntityType(
    "Device",
    _DEVICE,
    (
        _attribute(_DEVICE, "controlledProperty", "array", required=True),
        _attribute(_DEVICE, "deviceCategory", "array"),
        _attribute(_DEVICE, "name", "string"),
        _location(),
        _attribute(_DEVICE, "controlledAsset", "array"),
        _attribute(_DEVICE, "supportedProtocol", "array"),
        _attribute(_DEVICE, "serialNumber", "string"),
        _attribute(_DEVICE, "firmwareVersion", "string"),
        _attribute(_DEVICE, "deviceState", "string"),
        _attribute(_DEVICE, "dateInstalled", "string"),
        _attribute(_DEVICE, "dateLastValueReported", "string"),
    ),
)

DEVICE_MEASUREMENT: Final = EntityType(
    "DeviceMeasurement",
    _DEVICE,
    (
        _attribute(_DEVICE, "dateObserved", "string"),
        _attribute(_DEVICE, "refDevice", "string", kind=Kind.RELATIONSHIP),
        _attribute(_DEVICE, "controlledProperty", "string"),
        _attribute(_DEVICE, "measurementType", "string"),
        _attribute(_DEVICE, "numValue", "number", observed=True),
        _attribute(_DEVICE, "unit", "string"),
        _attribute(_DEVICE, "outlier", "boolean"),
        _location(),
    ),
)

SMART_METERING_OBSERVATION: Final = EntityType(
    "SmartMeteringObservation",
    _DEVICE,
    (
        _location(),
        _attribute(_DEVICE, "refDevice", "string", kind=Kind.RELATIONSHIP),
        _attribute(_DEVICE, "meterType", "string"),
        _attribute(_DEVICE, "totalConsumption", "number", KILOWATT_HOUR),
        _lent("totalActiveEnergyExport", "number", KILOWATT_HOUR),
        _lent("totalActivePower", "number", WATT),
        _lent("totalReactivePower", "number", VAR),
        _lent("phaseVoltage", "object", VOLT),
        _lent("current", "object", AMPERE),
    ),
)

PHOTOVOLTAIC_MEASUREMENT: Final = EntityType(
    "PhotovoltaicMeasurement",
    _GREEN,
    (
        _location(required=True),
        _attribute(_GREEN, "dateObserved", "string", required=True),
        _attribute(_GREEN, "refPhotovoltaicDevice", "string", kind=Kind.RELATIONSHIP, required=True),
        _attribute(_GREEN, "dateEnergyMeteringStarted", "string", required=True),
        _attribute(_GREEN, "temperature", "number", CELSIUS, required=True),
        _attribute(_GREEN, "activePower", "number", KILOWATT),
        _attribute(_GREEN, "reactivePower", "number", KILOVAR),
        _attribute(_GREEN, "current", "number", AMPERE),
        _attribute(_GREEN, "nominalPeakPowerGeneration", "number", KILOWATT, observed=False),
        _lent("phaseVoltage", "object", VOLT),
        *_LENT_ENERGY,
    ),
)

STORAGE_BATTERY_MEASUREMENT: Final = EntityType(
    "StorageBatteryMeasurement",
    _BATTERY,
    (
        _location(required=True),
        _attribute(_BATTERY, "dateObserved", "string", required=True),
        _attribute(_BATTERY, "refStorageBatteryDevice", "string", kind=Kind.RELATIONSHIP),
        _attribute(_BATTERY, "dateEnergyMeteringStarted", "string"),
        _attribute(_BATTERY, "stateOfCharge", "number", PERCENT, required=True),
        _attribute(
            _BATTERY,
            "batteryStatus",
            "string",
            enum=("consumingEnergy", "givingEnergy", "standby"),
            observed=True,
        ),
        _attribute(_BATTERY, "activePower", "number", KILOWATT),
        _attribute(_BATTERY, "reactivePower", "number", KILOVAR),
        _attribute(_BATTERY, "current", "number", AMPERE),
        _lent("phaseVoltage", "object", VOLT),
        *_LENT_ENERGY,
    ),
)

EV_CHARGING_STATION: Final = EntityType(
    "EVChargingStation",
    _TRANSPORT,
    (
        _attribute(_TRANSPORT, "socketType", "array", required=True),
        _attribute(_TRANSPORT, "capacity", "number", required=True),
        _attribute(_TRANSPORT, "allowedVehicleType", "array", required=True),
        _location(),
        _attribute(_TRANSPORT, "name", "string"),
        _attribute(_TRANSPORT, "observationDateTime", "string"),
        _attribute(
            _TRANSPORT,
            "status",
            "string",
            enum=("almostEmpty", "almostFull", "empty", "full", "outOfService", "withIncidence", "working"),
        ),
        _attribute(_TRANSPORT, "powerConsumption", "number", KILOWATT),
        _lent("totalReactivePower", "number", VAR),
        _lent("phaseVoltage", "object", VOLT),
        _lent("current", "object", AMPERE),
        *_LENT_ENERGY,
        _attribute(_BATTERY, "stateOfCharge", "number", PERCENT, lent_by="StorageBatteryMeasurement"),
    ),
)

OFFICIAL_TYPES: Final = (
    AC_MEASUREMENT,
    THREE_PHASE_AC_MEASUREMENT,
    DEVICE,
    DEVICE_MEASUREMENT,
    SMART_METERING_OBSERVATION,
    PHOTOVOLTAIC_MEASUREMENT,
    STORAGE_BATTERY_MEASUREMENT,
    EV_CHARGING_STATION,
)
