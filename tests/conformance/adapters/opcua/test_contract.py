"""The adapter's contract against node-opcua: Basic256Sha256, a user with a password, history, a method as command."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

import pytest
from support.opcua_rig import NodeOpcuaRig

from flexrelay_adapters.opcua import make_adapter
from flexrelay_sdk.quality import violations
from flexrelay_sdk.testkit import AdapterContract, BackfillContract, DiscoveryContract, FactContract, Promise, Rig

pytestmark = pytest.mark.timeout(600)


class TestOpcua(AdapterContract, DiscoveryContract, BackfillContract, FactContract):
    without: ClassVar[Mapping[Promise, str]] = {
        Promise.SLEEP: "OPC UA servers do not sleep; a command waits for the connection, see test_commands"
    }

    patience_s = 60.0
    """node-opcua takes its time to start on a busy machine."""

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return NodeOpcuaRig.open(tmp_path)


def test_it_is_what_its_quality_toml_says() -> None:
    assert violations("opcua", make_adapter, [TestOpcua]) == []
