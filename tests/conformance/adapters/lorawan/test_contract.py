"""The LoRaWAN adapter passes the SDK's contract in both network servers' formats, by MQTT and by webhook."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

import pytest

from flexrelay_adapters.lorawan import make_adapter
from flexrelay_sdk.quality import violations
from flexrelay_sdk.testkit import AdapterContract, FactContract, Promise, Rig

from .rig import BrokerRig, WebhookRig


@pytest.mark.mosquitto
class TestChirpStackByMqtt(AdapterContract, FactContract):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return BrokerRig.open("chirpstack", tmp_path)


@pytest.mark.mosquitto
class TestThingsStackByMqtt(AdapterContract, FactContract):
    """Its own broker does QoS 0 only; here Mosquitto stands for it, with QoS 1."""

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return BrokerRig.open("things_stack", tmp_path)


class _Webhook(AdapterContract, FactContract):
    is_server = True
    without: ClassVar = {
        Promise.RECONNECT: "the network server connects to the adapter",
        Promise.COMMANDS: "commands go by MQTT",
        Promise.SLEEP: "commands go by MQTT",
    }


class TestChirpStackByWebhook(_Webhook):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return WebhookRig.open("chirpstack", tmp_path)


class TestThingsStackByWebhook(_Webhook):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return WebhookRig.open("things_stack", tmp_path)


def test_it_is_what_its_quality_toml_says() -> None:
    assert violations("lorawan", make_adapter, [TestChirpStackByMqtt, TestThingsStackByMqtt]) == []
