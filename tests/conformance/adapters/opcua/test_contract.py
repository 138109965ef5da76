"""The adapter's contract against node-opcua: Basic256Sha256, a user with a password, history, a method as command."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

import pytest
from support.opcua_rig import NodeOpcuaRig

from flexrelay_sdk.testkit import AdapterContract, Promise, Rig

pytestmark = pytest.mark.timeout(120)


class TestOpcua(AdapterContract):
    without: ClassVar[Mapping[Promise, str]] = {
        Promise.SLEEP: "OPC UA servers do not sleep; a command waits for the connection, see test_commands"
    }

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return NodeOpcuaRig.open(tmp_path)
