"""The Sparkplug adapter passes the SDK's contract against sparkplug-client and a real Mosquitto."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from flexrelay_adapters.sparkplug import make_adapter
from flexrelay_sdk.quality import violations
from flexrelay_sdk.testkit import AdapterContract, DiscoveryContract, FactContract, Promise, Rig

from .rig import SparkplugRig

pytestmark = pytest.mark.mosquitto

QOS_0 = "Sparkplug demands QoS 0 for births and data, which is not acknowledged; the host's STATE makes nodes hold back"


class TestSparkplug(AdapterContract, DiscoveryContract, FactContract):
    without = dict.fromkeys((Promise.ACKNOWLEDGEMENT, Promise.REDELIVERY, Promise.RESUME, Promise.CRASH), QOS_0)

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return SparkplugRig.open(tmp_path, "5")


class TestSparkplug311(TestSparkplug):
    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return SparkplugRig.open(tmp_path, "3.1.1")


def test_it_is_what_its_quality_toml_says() -> None:
    assert violations("sparkplug", make_adapter, [TestSparkplug, TestSparkplug311]) == []
