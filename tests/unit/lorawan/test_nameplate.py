"""What uplinks and status events say of a device, however they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flexrelay_adapters.lorawan import nameplate
from flexrelay_adapters.lorawan.nameplate import Nameplates
from flexrelay_adapters.lorawan.servers import SERVERS
from flexrelay_sdk import DecodeError, DeviceFacts
from flexrelay_sdk.facts import NO_FACTS
from flexrelay_sdk.mapping import parse_json

INFO = {"devEui": "A84041FFFF1840C3", "deviceProfileName": "Meter X"}
IDS = {"end_device_ids": {"device_id": "meter-1"}}


def about(server: str, event: str, document: Any) -> DeviceFacts:
    device, facts = SERVERS[server].about(event, parse_json(json.dumps(document).encode()))
    assert device == ("meter-1" if server == "things_stack" else "a84041ffff1840c3")
    return facts


@pytest.mark.parametrize(
    ("status", "permille"),
    [
        ({"batteryLevel": 93.70079}, 937),
        ({"batteryLevel": 100}, 1000),
        ({}, 0),  # the server leaves out zeros
        ({"externalPowerSource": True}, None),
        ({"batteryLevelUnavailable": True}, None),
        ({"batteryLevel": 101}, None),
        ({"batteryLevel": -1}, None),
        ({"batteryLevel": True}, None),
        ({"batteryLevel": "93"}, None),
        ({"batteryLevel": [1e300]}, None),
    ],
)
def test_a_chirpstack_status(status: dict[str, Any], permille: int | None) -> None:
    assert about("chirpstack", "status", {"deviceInfo": INFO, **status}) == DeviceFacts(
        model="Meter X", battery_permille=permille
    )
    assert about("chirpstack", "up", {"deviceInfo": INFO, **status}).battery_permille is None


def test_an_uplink_of_the_things_stack() -> None:
    version = {"brand_id": "acme", "model_id": "meter-x", "hardware_version": "1", "firmware_version": "1.2"}
    battery = {"f_cnt": 12225, "received_at": "2025-07-30T20:13:30.785113840Z", "value": 39.130436}
    whole = {**IDS, "uplink_message": {"version_ids": version, "last_battery_percentage": battery}}
    assert about("things_stack", "up", whole) == DeviceFacts("acme", "meter-x", "", "1.2", 391)
    for message in ({}, {"version_ids": []}, {"version_ids": {"brand_id": 1}, "last_battery_percentage": 5}):
        assert about("things_stack", "up", {**IDS, "uplink_message": message}) == NO_FACTS


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("document", [[], {}, {"deviceInfo": {"devEui": 5}}, {"end_device_ids": {"device_id": ""}}])
def test_what_names_no_device(server: str, document: Any) -> None:
    with pytest.raises(DecodeError):
        SERVERS[server].about("status", document)


def test_what_is_not_told_again_stays_and_the_number_of_devices_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameplate, "_DEVICES", 2)
    known = Nameplates()
    known.learn("a", DeviceFacts(model="M", battery_permille=500))
    known.learn("a", DeviceFacts(battery_permille=0))
    known.learn("b", NO_FACTS)
    assert known.told() == [("a", DeviceFacts(model="M", battery_permille=0))]
    for name in ("b", "a", "c"):
        known.learn(name, DeviceFacts(model=name))
    assert known.told() == [("a", DeviceFacts(model="a", battery_permille=0)), ("c", DeviceFacts(model="c"))]
