"""The MQTT adapter passes the SDK's contract against a real Mosquitto, on both versions of the protocol."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from flexrelay_sdk.testkit import AdapterContract, Rig

from .rig import MqttRig

pytestmark = pytest.mark.mosquitto


class TestMqtt5(AdapterContract):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return MqttRig.open(tmp_path, "5")


class TestMqtt311(AdapterContract):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return MqttRig.open(tmp_path, "3.1.1")
