"""Ultralight and FIWARE JSON pass the SDK's contract: over MQTT with a real Mosquitto, over HTTP with httpx."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from flexrelay_adapters import fiware_json, ultralight
from flexrelay_sdk.quality import violations
from flexrelay_sdk.testkit import AdapterContract, DiscoveryContract, Promise, Rig

from .rig import HttpDeviceRig, JsonSpeech, MqttDeviceRig, UltralightSpeech

mosquitto = pytest.mark.mosquitto
SERVER = {Promise.RECONNECT: "devices connect to the adapter: there is no server to be lost"}


@mosquitto
class TestUltralightMqtt(AdapterContract, DiscoveryContract):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return MqttDeviceRig.open(tmp_path, UltralightSpeech())


@mosquitto
class TestJsonMqtt(AdapterContract, DiscoveryContract):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return MqttDeviceRig.open(tmp_path, JsonSpeech(), "3.1.1")


class TestUltralightHttp(AdapterContract):
    is_server = True
    without = SERVER

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return HttpDeviceRig.open(tmp_path, UltralightSpeech())


class TestJsonHttp(AdapterContract):
    is_server = True
    without = SERVER

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return HttpDeviceRig.open(tmp_path, JsonSpeech())


def test_ultralight_is_what_its_quality_toml_says() -> None:
    assert violations("ultralight", ultralight.make_adapter, [TestUltralightMqtt]) == []


def test_fiware_json_is_what_its_quality_toml_says() -> None:
    assert violations("fiware_json", fiware_json.make_adapter, [TestJsonMqtt]) == []
