"""Entities: conversions without noise, both forms, and the mapping from registers."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_schemas.entities import (
    FLEXIBILITY_TYPES,
    OFFICIAL_TYPES,
    TYPES,
    DeviceInfo,
    Entity,
    EntityError,
    Quality,
    Value,
    device_entity,
    device_measurement,
    map_measurement,
)
from flexrelay_schemas.entities import units as u
from flexrelay_schemas.entities.entity import instant, timestamp
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance

SCID = "zQmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG"
DID = f"did:flexrelay:demo:{SCID}"
NOON = 1463745600000
CONVERSIONS = [u.WATT, u.KILOWATT, u.KILOWATT_HOUR, u.VAR, u.KILOVAR, u.VOLT, u.AMPERE, u.PERCENT, u.CELSIUS]
STATIC: dict[str, dict[str, Any]] = {
    "pv": {"temperature": 25},
    "ev": {"socketType": ["Type2"], "capacity": 2, "allowedVehicleType": ["car"]},
}
REGISTERS = {
    "import_j": 123_456_789,
    "export_j": 3_600_000,
    "power_w": -4321,
    "reactive_var": 120,
    "voltage_mv": 230_456,
    "current_ma": 18_750,
    "soc_permille": 553,
}


def info(kind: str, **more: Any) -> DeviceInfo:
    return DeviceInfo(DID, kind, (9.47, 51.31), metering_started=0, static=STATIC.get(kind, {}), **more)


def measurement(registers: dict[str, int], **more: Any) -> Measurement:
    return Measurement(DID, NOON, registers, provenance=Provenance.METER_SIGNED, **more)


# --- units


@pytest.mark.parametrize("conversion", CONVERSIONS, ids=lambda c: f"{c.unit_code}-{c.divisor}")
@given(st.integers(-(10**15), 10**15))
def test_a_converted_number_comes_back_exactly(conversion: u.Conversion, value: int) -> None:
    number = json.loads(json.dumps(conversion.number(value)))
    assert conversion.base(number) == value


@pytest.mark.parametrize("conversion", CONVERSIONS, ids=lambda c: f"{c.unit_code}-{c.divisor}")
@given(st.integers(-(10**12), 10**12))
def test_the_json_text_is_the_exact_decimal(conversion: u.Conversion, value: int) -> None:
    assert Decimal(json.dumps(conversion.number(value))) == conversion.exact(value)


@given(st.integers(-(10**12), 10**12))
def test_kilowatt_hours_are_rounded_to_the_nearest_nano(joules: int) -> None:
    distance = abs(u.KILOWATT_HOUR.exact(joules) * 3_600_000 - joules)
    assert distance * 2 <= Decimal("0.0036")


def test_no_binary_noise_where_floats_usually_show_it() -> None:
    assert json.dumps(u.KILOWATT.number(1_100 + 2_200)) == "3.3"
    assert json.dumps(u.KILOWATT_HOUR.number(1_080_000)) == "0.3"
    assert json.dumps(u.VOLT.number(230_100)) == "230.1"
    assert u.KILOWATT_HOUR.number(0) == 0
    with pytest.raises(ValueError, match="finite"):
        u.WATT.base(float("nan"))


# --- times and quality


@given(st.integers(0, 4_102_444_800_000))
def test_timestamps_are_iso_8601_with_milliseconds_and_z(ms: int) -> None:
    text = timestamp(ms)
    assert len(text) == 24
    assert text.endswith("Z")
    assert instant(text) == ms


@pytest.mark.parametrize("text", ["2016-05-20T12:00:00", "yesterday", "2016-05-20T25:00:00Z"])
def test_an_instant_needs_its_offset(text: str) -> None:
    with pytest.raises(ValueError, match=r"offset|format|hour"):
        instant(text)


@given(st.sampled_from(Provenance), st.integers(0, 31).map(Notice))
def test_quality_comes_back(provenance: Provenance, notice: Notice) -> None:
    quality = Quality(provenance, notice)
    assert Quality.parse(json.loads(json.dumps(quality.normalized()))) == quality
    assert quality.text().split()[0] == provenance.name.lower()


# --- the mapping

EXPECTED: dict[str, tuple[str, dict[str, tuple[Any, str | None]]]] = {
    "meter": (
        "ACMeasurement",
        {
            "totalActivePower": (-4321, "WTT"),
            "totalReactivePower": (120, "D44"),
            "totalActiveEnergyImport": (34.293552500, "KWH"),
            "totalActiveEnergyExport": (1, "KWH"),
            "phaseVoltage": ({"L1": 230.456}, "VLT"),
            "current": ({"L1": 18.75}, "AMP"),
        },
    ),
    "smart_meter": (
        "SmartMeteringObservation",
        {"totalConsumption": (34.293552500, "KWH"), "totalActiveEnergyExport": (1, "KWH")},
    ),
    "pv": (
        "PhotovoltaicMeasurement",
        {"activePower": (4.321, "KWT"), "reactivePower": (0.12, "K5"), "current": (18.75, "AMP")},
    ),
    "battery": (
        "StorageBatteryMeasurement",
        {"activePower": (-4.321, "KWT"), "stateOfCharge": (55.3, "P1"), "batteryStatus": ("givingEnergy", None)},
    ),
    "ev": ("EVChargingStation", {"powerConsumption": (-4.321, "KWT"), "stateOfCharge": (55.3, "P1")}),
    "three_phase_meter": ("ThreePhaseAcMeasurement", {"totalActivePower": (-4321, "WTT")}),
}


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_values_units_time_and_quality(kind: str) -> None:
    name, expected = EXPECTED[kind]
    document = map_measurement(kind, measurement(REGISTERS, notice=Notice.LATE | Notice.GAP), info(kind))
    assert (document["id"], document["type"]) == (f"urn:ngsi-ld:{name}:{SCID}", name)
    for attribute, (value, unit) in expected.items():
        node = document[attribute]
        assert node["value"] == value
        assert node.get("unitCode") == unit
        assert node["observedAt"] == "2016-05-20T12:00:00.000Z"
        assert node["quality"]["value"] == "meter_signed"
        assert node["quality"]["notices"]["value"] == ["late", "gap"]


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_every_number_that_was_measured_carries_time_and_quality(kind: str) -> None:
    document = map_measurement(kind, measurement(REGISTERS), info(kind))
    entity_type = TYPES[document["type"]]
    for attribute in entity_type.attributes:
        if attribute.observed and attribute.name in document and attribute.name not in STATIC.get(kind, {}):
            assert {"observedAt", "quality"} <= document[attribute.name].keys()


@pytest.mark.parametrize("kind", sorted(EXPECTED))
@given(
    chosen=st.sets(st.sampled_from(sorted(REGISTERS)), min_size=1),
    value=st.integers(-(10**11), 10**11),
    provenance=st.sampled_from(Provenance),
    notice=st.integers(0, 31).map(Notice),
)
def test_the_fast_mapping_is_what_entity_builds(
    kind: str, chosen: set[str], value: int, provenance: Provenance, notice: Notice
) -> None:
    """Reading the document as an Entity checks every name, kind, unit and type; writing it again gives the same."""
    registers = dict.fromkeys(sorted(chosen), value)
    document = map_measurement(kind, Measurement(DID, NOON, registers, 1, provenance, notice), info(kind))
    text = json.loads(json.dumps(document))
    entity = Entity.from_normalized(TYPES[document["type"]], text)
    assert entity.to_normalized() == json.loads(json.dumps(entity.to_normalized())) == text
    simple = entity.to_key_values()
    for name, stored in entity.values.items():
        assert simple[name] == stored.value
        if stored.quality is not None:
            assert simple["quality"][name] == stored.quality.text()


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_nothing_required_is_missing_when_the_registry_is_complete(kind: str) -> None:
    assert info(kind).missing() == ()
    document = map_measurement(kind, measurement(REGISTERS), info(kind))
    assert Entity.from_normalized(TYPES[document["type"]], document).missing() == ()


def test_missing_says_what_nobody_has_told() -> None:
    assert DeviceInfo(DID, "pv").missing() == ("location", "dateEnergyMeteringStarted", "temperature")
    assert DeviceInfo(DID, "ev").missing() == ("socketType", "capacity", "allowedVehicleType")
    assert DeviceInfo(DID, "meter").missing() == ("location",)
    assert "location" not in map_measurement("meter", measurement({"power_w": 1}))


@pytest.mark.parametrize(("power", "status"), [(1, "consumingEnergy"), (-1, "givingEnergy"), (0, "standby")])
def test_battery_status_follows_the_sign(power: int, status: str) -> None:
    assert map_measurement("battery", measurement({"power_w": power}))["batteryStatus"]["value"] == status


def test_phase_type_comes_from_the_registry() -> None:
    reading = measurement({"power_w": 1})
    assert map_measurement("meter", reading, info("meter", phases=3))["phaseType"]["value"] == "threePhase"
    assert map_measurement("meter", reading)["phaseType"]["value"] == "singlePhase"


def test_unknown_kinds_are_named() -> None:
    with pytest.raises(ValueError, match=r"'toaster' is unknown; known are meter"):
        map_measurement("toaster", measurement({"power_w": 1}))
    with pytest.raises(ValueError, match="registered as pv, not meter"):
        map_measurement("meter", measurement({"power_w": 1}), info("pv"))
    with pytest.raises(ValueError, match="no attribute 'colour'"):
        map_measurement("pv", measurement({"power_w": 1}), DeviceInfo(DID, "pv", static={"colour": "blue"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "toaster"}, "'toaster' is unknown"),
        ({"static": {"colour": "blue"}}, "no attribute 'colour'"),
        ({"static": {"temperature": "warm"}}, "temperature is a str"),
        ({"phases": 2}, "2 phases"),
        ({"location": (51.3, 109.5)}, "not \\(longitude, latitude\\)"),
        ({"location": (float("nan"), 0.0)}, "location"),
    ],
)
def test_a_registry_record_that_cannot_be_mapped_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeviceInfo(**{"did": DID, "kind": "pv", **change}).check()
    info("pv").check()


@pytest.mark.parametrize("register", sorted(REGISTERS))
def test_any_register_as_a_device_measurement(register: str) -> None:
    entity = device_measurement(measurement(REGISTERS), register)
    back = Entity.from_normalized(entity.type, json.loads(json.dumps(entity.to_normalized())))
    assert back == entity
    assert entity.values["numValue"].quality == Quality(Provenance.METER_SIGNED)
    assert entity.missing() == ()


@pytest.mark.parametrize("kind", sorted(EXPECTED))
def test_device_entity(kind: str) -> None:
    entity = device_entity(info(kind), name="roof", protocols=("mqtt",))
    assert entity.missing() == ()
    assert Entity.from_normalized(entity.type, entity.to_normalized()) == entity


# --- entities refuse what does not fit

AC = TYPES["ACMeasurement"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"watts": Value(1)}, "no attribute 'watts'"),
        ({"totalActivePower": Value("1")}, "totalActivePower is a str"),
        ({"totalActivePower": Value(True)}, "totalActivePower is a bool"),
        ({"totalActivePower": Value(float("nan"))}, "not a finite number"),
        ({"totalActivePower": Value(float("-inf"))}, "not a finite number"),
        ({"phaseType": Value("twoPhase")}, "not one of singlePhase"),
        ({"phaseVoltage": Value([1])}, "phaseVoltage is a list"),
    ],
)
def test_entity_refuses(values: dict[str, Value], message: str) -> None:
    with pytest.raises(EntityError, match=message):
        Entity(AC, "urn:ngsi-ld:ACMeasurement:1", values)


GOOD = {"type": "Property", "value": 1, "unitCode": "WTT", "observedAt": "2016-05-20T12:00:00.000Z"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "Device"}, "not 'ACMeasurement'"),
        ({"id": 5}, "id is missing"),
        ({"id": "noturi"}, "not a URI"),
        ({"totalActivePower": 5}, "not a Property"),
        ({"totalActivePower": {**GOOD, "type": "Relationship"}}, "not a Property"),
        ({"totalActivePower": {**GOOD, "unitCode": "KWT"}}, "unitCode 'KWT'; it is 'WTT'"),
        ({"totalActivePower": {"type": "Property", "value": 1}}, "unitCode None"),
        ({"totalActivePower": {**GOOD, "observedAt": "2016-05-20"}}, "observedAt"),
        ({"totalActivePower": {**GOOD, "observedAt": 7}}, "observedAt"),
        ({"totalActivePower": {**GOOD, "quality": {"value": "perfect"}}}, "quality"),
        ({"totalActivePower": {**GOOD, "quality": "good"}}, "quality"),
        ({"totalActivePower": {**GOOD, "extra": 1}}, "unknown member 'extra'"),
        ({"colour": {"type": "Property", "value": "blue"}}, "no attribute 'colour'"),
    ],
)
def test_from_normalized_refuses(change: dict[str, Any], message: str) -> None:
    document = {"id": "urn:ngsi-ld:ACMeasurement:1", "type": "ACMeasurement", "totalActivePower": GOOD, **change}
    with pytest.raises(EntityError, match=message):
        Entity.from_normalized(AC, document)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "value", "object", "unitCode", "observedAt", "quality", "notices", "x"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    )
)
def test_from_normalized_never_breaks_on_any_node(node: Any) -> None:
    document = {"id": "urn:x:1", "type": "ACMeasurement", "totalActivePower": node}
    try:
        entity = Entity.from_normalized(AC, document)
    except EntityError:
        return
    assert isinstance(entity.values["totalActivePower"].value, int | float)


# --- our own types


def _sample(json_type: str, enum: tuple[str, ...], relationship: bool) -> Any:
    if relationship:
        return "urn:ngsi-ld:Thing:1"
    if enum:
        return enum[0]
    return {"string": "text", "number": 1.5, "boolean": True, "array": [{"isp": 1, "power": 2.5}], "object": {}}[
        json_type
    ]


@pytest.mark.parametrize("entity_type", FLEXIBILITY_TYPES, ids=lambda t: t.name)
def test_flexibility_entities_in_both_forms(entity_type: Any) -> None:
    values = {
        a.name: Value(_sample(a.json_type, a.enum, a.kind.value == "Relationship"), NOON if a.observed else None)
        for a in entity_type.attributes
    }
    entity = Entity(entity_type, f"urn:ngsi-ld:{entity_type.name}:1", values)
    assert entity.missing() == ()
    assert Entity.from_normalized(entity_type, json.loads(json.dumps(entity.to_normalized()))) == entity
    own = entity.to_key_values()["@context"][0]
    assert set(own) >= {a.name for a in entity_type.attributes} | {entity_type.name}


def test_names_are_unique_and_say_what_they_are() -> None:
    assert len(TYPES) == len(OFFICIAL_TYPES) + len(FLEXIBILITY_TYPES) == 14
    for entity_type in TYPES.values():
        names = [a.name for a in entity_type.attributes]
        assert len(names) == len(set(names))
