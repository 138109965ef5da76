"""DataSetMessages into readings: encodings, status, times, metadata. What node-opcua's encoder writes is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.opcua_publisher import (
    AT,
    data_set_message,
    encoded_by_node_opcua,
    iso,
    metadata_message,
    network_message,
    value_at,
)

from flexrelay_adapters.opcua_pubsub import DataSet, PubSubCodec
from flexrelay_adapters.opcua_pubsub.frame import framed, undivided
from flexrelay_adapters.opcua_pubsub.message import network_message as divided
from flexrelay_adapters.opcua_pubsub.metadata import metadata_of
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice
from flexrelay_sdk import DecodeError, Frame

REGISTERS = {
    "power_w": {"field": "Power", "unit": "kW", "negate": True},
    "import_j": {"field": "Import", "unit": "Wh"},
    "voltage_mv": {"field": "Voltage", "unit": "V"},
    "soc_permille": {"field": "Soc", "unit": "%"},
    "current_ma": {"field": "Current", "unit": "A"},
}
RECEIVED = AT + 60_000


def codec(**more: Any) -> PubSubCodec:
    return PubSubCodec([DataSet.model_validate({"registers": REGISTERS, **more.pop("dataset", {})})], **more)


def read(
    message: dict[str, Any],
    using: PubSubCodec | None = None,
    facts: bytes = b"",
    credential: str = "plc1/1",
    **head: int,
) -> Measurement:
    frame = Frame("opcua_pubsub", credential, framed(json.dumps(message).encode(), facts, **head), RECEIVED)
    (found,) = (using or codec()).decode(frame).measurements
    return found


def refused(message: dict[str, Any], using: PubSubCodec | None = None, facts: bytes = b"") -> str:
    with pytest.raises(DecodeError) as error:
        read(message, using, facts)
    return error.value.reason


@pytest.mark.parametrize("encoding", ["Verbose", "Compact", "DeprecatedReversible", "DeprecatedNonReversible"])
def test_every_encoding_of_node_opcua_says_the_same(encoding: str) -> None:
    """DataValues, Variants and a delta frame, of 1.05 and 1.04; the metadata's units fit the configuration."""
    written = encoded_by_node_opcua()[encoding]
    facts = metadata_of(written["metadata"], [each["field"] for each in REGISTERS.values()])
    assert (facts.major, facts.minor) == (7, 8) and facts.missing == ("Current", "Soc")
    assert json.loads(facts.facts) == {
        "major": 7,
        "types": {"Power": 11, "Import": 9, "Voltage": 10},
        "units": {"Power": "kW", "Import": "Wh"},
    }
    registers = {"power_w": 1500, "import_j": 18_000_000, "voltage_mv": 230_100, "soc_permille": 555}
    for told in (b"", facts.facts):
        reading = read(written["values"], facts=told)
        assert (reading.observed_at, dict(reading.registers)) == (AT, registers)
        assert reading.notice == Notice.DEVICE_FLAGGED, "one value is bad, one uncertain"
        reading = read(written["variants"], facts=told)
        assert (reading.observed_at, dict(reading.registers)) == (AT + 1000, registers), "Variants have no times"
        reading = read(written["delta"], facts=told)
        assert (reading.observed_at, dict(reading.registers), reading.notice) == (AT, {"power_w": 1500}, Notice.NONE)
    assert divided(json.dumps(written["status"]).encode()).kind == "ua-status"
    idle = read(written["values"], codec(dataset={"registers": {"power_w": {"field": "Idle", "unit": "W"}}}))
    assert dict(idle.registers) == {"power_w": 0}, "the compact encoding leaves zeros out"


def test_the_instant() -> None:
    fields = {"Power": value_at(1, AT - 500), "Import": value_at(5, AT), "Other": value_at(1, AT + 900)}
    assert read(data_set_message(fields)).observed_at == AT, "the newest of the fields that are taken"
    assert read(data_set_message(fields), codec(by_source=False)).observed_at == AT + 1000
    assert read(data_set_message(fields, Timestamp=None), codec(by_source=False)).observed_at == AT
    server = {"Power": {"Value": 1, "ServerTimestamp": iso(AT - 7)}}
    assert read(data_set_message(server)).observed_at == AT - 7
    assert read(data_set_message({"Power": 1})).observed_at == AT + 1000
    assert read(data_set_message({"Power": 1}, Timestamp="0001-01-01T00:00:00Z")).observed_at == RECEIVED
    assert read(data_set_message({"Power": 1}), shift_ms=3).observed_at == AT + 1003
    assert refused(data_set_message({"Power": 1}, Timestamp="yesterday")) == "bad_time"
    assert refused(data_set_message({"Power": 1}, Timestamp=AT)) == "bad_time"
    assert refused(data_set_message({"Power": {"Value": 1, "SourceTimestamp": "2023-11-14T22:13:20"}})) == "bad_time"


@pytest.mark.parametrize(
    ("status", "notice"),
    [
        (None, Notice.NONE),
        (0, Notice.NONE),
        ({}, Notice.NONE),
        ({"Symbol": "Good"}, Notice.NONE),
        ("GoodOverload", Notice.NONE),
        (0x4090_0000, Notice.DEVICE_FLAGGED),
        ({"Code": 0x4090_0000}, Notice.DEVICE_FLAGGED),
        ("UncertainLastUsableValue", Notice.DEVICE_FLAGGED),
        (0x8000_0000, None),
        ({"Code": 0x808C_0000, "Symbol": "BadSensorFailure"}, None),
        ("BadSensorFailure", None),
        ("nobody knows", None),
        (-1, None),
        (2**32, None),
        (True, None),
        ([], None),
        ({"Code": {}}, None),
    ],
)
def test_status(status: Any, notice: Notice | None) -> None:
    """Of the whole message, of a field, and beside a good field."""
    of_message = data_set_message({"Power": 1}, Status=status)
    of_field = data_set_message({"Power": value_at(1, AT, Status=status)})
    beside = data_set_message({"Power": value_at(1, AT, StatusCode=status), "Import": 5})
    if notice is None:
        assert refused(of_message) == "bad_status" and refused(of_field) == "bad_status"
        assert dict(read(beside).registers) == {"import_j": 18000}
        assert read(beside).notice == Notice.DEVICE_FLAGGED
    else:
        assert [read(each).notice for each in (of_message, of_field, beside)] == [notice] * 3


@pytest.mark.parametrize(
    ("value", "power_w"),
    [
        (1.0005, -1000),  # half to even: 1000.5 W
        (1.0015, -1002),
        (-0.2, 200),
        ("7", -7000),  # an Int64
        ({"Type": 8, "Body": "-9"}, 9000),
        ({"UaType": 10, "Value": 230.10000610351562}, -230_100),  # a Float printed as a Double
        ({"UaType": 4, "Value": 12}, -12_000),
        ({"UaType": 11}, 0),
        ({"Value": 5}, -5000),
    ],
)
def test_values(value: Any, power_w: int) -> None:
    assert dict(read(data_set_message({"Power": value})).registers) == {"power_w": power_w}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("NaN", "not_a_number"),
        ("Infinity", "not_a_number"),
        ("5 kW", "not_a_number"),
        ("٣", "not_a_number"),
        (True, "not_a_number"),
        ([1], "not_a_number"),
        ({"Some": 1}, "not_a_number"),
        ({"UaType": 12, "Value": "5"}, "not_a_number"),
        ({"UaType": 11, "Value": "5"}, "not_a_number"),
        ({"UaType": 1, "Value": True}, "not_a_number"),
        ({"UaType": 10, "Value": 1e300}, "out_of_range"),
        ({"Type": 11, "Body": [1, 2]}, "not_a_number"),
        ({"Code": 0x8000_0000}, "bad_status"),
        ({"Type": 19, "Body": 0x8000_0000}, "bad_status"),
        (1e17, "out_of_range"),
        ("99999999999999999999", "out_of_range"),
        (None, "missing_field"),
        ({}, "missing_field"),
        ({"UaType": 0}, "missing_field"),
        ({"Type": 11}, "missing_field"),
        ({"Type": 19, "Body": 0}, "missing_field"),
    ],
)
def test_what_is_no_value(value: Any, reason: str) -> None:
    message = data_set_message({"Power": value})
    assert refused(message) == reason
    assert dict(read({**message, "Payload": {"Power": value, "Import": 1}}).registers) == {"import_j": 3600}


def test_messages_without_values() -> None:
    assert refused({"DataSetWriterId": 1, "MessageType": "ua-keepalive", "SequenceNumber": 3}) == "no_value"
    assert refused(data_set_message({"Power": 1}, MessageType="ua-event")) == "no_value"
    assert refused(data_set_message({"Other": 1})) == "missing_field"
    assert dict(read({"Power": 1}).registers) == {"power_w": -1000}, "a payload without any header"


def test_a_gap_is_noted() -> None:
    assert read(data_set_message({"Power": 1}), missing=3).notice == Notice.GAP


def test_metadata_that_says_another_unit() -> None:
    """kW is configured for Power, Wh for Import; UnitIds are UN/CEFACT codes."""
    kilowatts, watts, volts, odd = (int.from_bytes(code, "big") for code in (b"KWT", b"WTT", b"VLT", b"ZZZ"))

    def facts(unit: int, kinds: int = 11) -> bytes:
        told = json.loads(metadata_message({"Power": unit, "Import": 0}, kinds=kinds))
        return metadata_of(told, ["Power", "Import"]).facts

    message = data_set_message({"Power": 1, "Import": 1}, MetaDataVersion={"MajorVersion": 7, "MinorVersion": 7})
    assert set(read(message, facts=facts(kilowatts)).registers) == {"power_w", "import_j"}
    assert set(read(message, facts=facts(odd)).registers) == {"power_w", "import_j"}, "a unit that is not known here"
    for wrong in (watts, volts):
        found = read(message, facts=facts(wrong))
        assert set(found.registers) == {"import_j"} and found.notice == Notice.DEVICE_FLAGGED
    alone = data_set_message({"Power": 1})
    assert refused(alone, facts=facts(watts)) == "other_unit"
    scaled = codec(dataset={"registers": {"power_w": {"field": "Power", "unit": "W", "scale": 3}}})
    assert dict(read(alone, scaled, facts(kilowatts)).registers) == {"power_w": 1000}
    milli = codec(dataset={"registers": {"power_w": {"field": "Power", "unit": "kW", "scale": -3}}})
    assert dict(read(alone, milli, facts(watts)).registers) == {"power_w": 1}
    assert refused(alone, facts=facts(0, kinds=12)) == "not_a_number", "the metadata says that it is a text"
    other = data_set_message({"Power": 1}, MetaDataVersion={"MajorVersion": 8})
    assert dict(read(other, facts=facts(watts)).registers) == {"power_w": -1000}, "metadata of another version"


def test_a_version_can_be_demanded() -> None:
    pinned = codec(dataset={"major": 7})
    assert refused(data_set_message({"Power": 1}, MetaDataVersion={"MajorVersion": 8}), pinned) == "other_version"
    for version in ({"MajorVersion": 7, "MinorVersion": 99}, None, {}):
        message = data_set_message({"Power": 1}, MetaDataVersion=version)
        if version == {}:
            assert refused(message, pinned) == "other_version", "0 is left out by the compact encoding"
        else:
            assert read(message, pinned).registers


def test_writers() -> None:
    two = PubSubCodec(
        [
            DataSet.model_validate({"writers": ["1", "battery"], "registers": REGISTERS}),
            DataSet.model_validate({"writers": ["3"], "registers": {"power_w": {"field": "P", "unit": "W"}}}),
        ]
    )
    assert dict(read(data_set_message({"Power": 1}), two).registers) == {"power_w": -1000}
    assert dict(read(data_set_message({"P": 1}), two, credential="plc1/3").registers) == {"power_w": 1}
    named = data_set_message({"Power": 1}, DataSetWriterName="battery")
    assert dict(read(named, two, credential="plc1/9").registers) == {"power_w": -1000}
    with pytest.raises(DecodeError, match="unknown_writer"):
        read(data_set_message({"Power": 1}), two, credential="plc1/2")


def test_what_could_not_be_divided_says_why_again() -> None:
    def why(payload: bytes, **more: Any) -> str:
        with pytest.raises(DecodeError) as error:
            codec(**more).decode(Frame("opcua_pubsub", "plc1", undivided(payload), RECEIVED))
        return error.value.reason

    foreign = network_message(data_set_message({"Power": 1}), publisher="plc2")
    assert why(b"x") == "not_json" and why(foreign) == "wrong_sender"
    assert why(foreign, check_publisher=False) == "undivided"


@pytest.mark.parametrize(
    "frame", [b"", b"\2M\0\0\0\0\0{}", b"\1X\0\0\0\0\0{}", b"\1M\0\0\0\xff\xff{}", b"\1M\0\0\0\0\2[]"]
)
def test_frames_of_others_are_refused(frame: bytes) -> None:
    with pytest.raises(DecodeError, match="bad_envelope"):
        codec().decode(Frame("opcua_pubsub", "plc1", frame, RECEIVED))
