"""The Sigfox adapter passes the SDK's contract with callbacks in the backend's documented form."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

from flexrelay_adapters.sigfox import make_adapter
from flexrelay_sdk.quality import violations
from flexrelay_sdk.testkit import AdapterContract, Promise, Rig

from .rig import SigfoxRig


class TestSigfox(AdapterContract):
    is_server = True
    without: ClassVar = {Promise.RECONNECT: "the backend connects to the adapter"}

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return SigfoxRig.open(tmp_path)


def test_it_is_what_its_quality_toml_says() -> None:
    assert violations("sigfox", make_adapter, [TestSigfox]) == []
