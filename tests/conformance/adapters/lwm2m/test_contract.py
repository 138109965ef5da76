"""The LwM2M adapter passes the SDK's contract with a device that is not ours (aiocoap)."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

from flexrelay_adapters.lwm2m import make_adapter
from flexrelay_sdk.quality import violations
from flexrelay_sdk.testkit import AdapterContract, DiscoveryContract, FactContract, Promise, Rig, TimeContract

from .rig import Lwm2mRig


class TestLwm2m(AdapterContract, DiscoveryContract, TimeContract, FactContract):
    is_server = True
    without: ClassVar = {Promise.RECONNECT: "devices connect to the adapter: there is no server that it could lose"}

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return Lwm2mRig.open(tmp_path)


def test_it_is_what_its_quality_toml_says() -> None:
    assert violations("lwm2m", make_adapter, [TestLwm2m]) == []
