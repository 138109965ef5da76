"""The PubSub adapter passes the SDK's contract against a real Mosquitto, on both versions of MQTT."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

import pytest

from flexrelay_adapters.opcua_pubsub import make_adapter
from flexrelay_sdk.quality import violations
from flexrelay_sdk.testkit import AdapterContract, DiscoveryContract, Promise, Rig

from .rig import PubSubRig

pytestmark = pytest.mark.mosquitto

NO_WAY_BACK = "commands go to the server behind the publisher, by the adapter `opcua`; PubSub's Actions are not used"


class TestPubSub(AdapterContract, DiscoveryContract):
    without: ClassVar = {Promise.COMMANDS: NO_WAY_BACK, Promise.SLEEP: NO_WAY_BACK}

    patience_s = 60.0

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return PubSubRig.open(tmp_path, "5")


class TestPubSub311(TestPubSub):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return PubSubRig.open(tmp_path, "3.1.1")


def test_it_is_what_its_quality_toml_says() -> None:
    assert violations("opcua_pubsub", make_adapter, [TestPubSub, TestPubSub311]) == []
