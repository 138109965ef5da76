"""The adapter keeps the contract, with pymodbus as the device."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

from flexrelay_adapters.modbus import make_adapter
from flexrelay_sdk.quality import violations
from flexrelay_sdk.testkit import AdapterContract, DiscoveryContract, FactContract, Promise, Rig

from .rig import PymodbusRig

_NO_ACKNOWLEDGEMENT = "registers are only read: Modbus has no acknowledgement, and a device keeps nothing for later"


class TestModbusAdapter(AdapterContract, DiscoveryContract, FactContract):
    without: ClassVar = {
        Promise.ACKNOWLEDGEMENT: _NO_ACKNOWLEDGEMENT,
        Promise.REDELIVERY: _NO_ACKNOWLEDGEMENT,
        Promise.RESUME: _NO_ACKNOWLEDGEMENT,
        Promise.CRASH: _NO_ACKNOWLEDGEMENT,
        Promise.SLEEP: "Modbus devices do not sleep; a command waits for the connection: test_commands_in_an_outage.py",
    }

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return PymodbusRig.open()


def test_it_is_as_good_as_it_says() -> None:
    assert violations("modbus", make_adapter, [TestModbusAdapter]) == []
