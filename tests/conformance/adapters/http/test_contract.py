"""The HTTP adapter passes the SDK's contract with a device on httpx."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

from flexrelay_adapters.http import make_adapter
from flexrelay_sdk.quality import violations
from flexrelay_sdk.testkit import AdapterContract, Promise, Rig

from .rig import HttpRig


class TestHttp(AdapterContract):
    is_server = True
    without: ClassVar = {Promise.RECONNECT: "devices connect to the adapter: there is no server that it could lose"}

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return HttpRig.open(tmp_path)


def test_it_is_what_its_quality_toml_says() -> None:
    assert violations("http", make_adapter, [TestHttp]) == []
