"""The MQTT adapter passes the SDK's contract against a real Mosquitto, on both versions of the protocol."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from flexrelay_adapters.mqtt import make_adapter
from flexrelay_sdk.quality import violations
from flexrelay_sdk.testkit import AdapterContract, Rig

from .rig import MqttRig

pytestmark = pytest.mark.mosquitto


class TestMqtt5(AdapterContract):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return MqttRig.open(tmp_path, "5")


class TestMqtt311(AdapterContract):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return MqttRig.open(tmp_path, "3.1.1")


def test_it_is_what_its_quality_toml_says() -> None:
    assert violations("mqtt", make_adapter, [TestMqtt5, TestMqtt311]) == []
