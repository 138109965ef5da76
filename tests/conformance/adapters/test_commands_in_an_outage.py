"""Commands while the other side is away: one waits for it, one whose time is over meanwhile is never sent. For adapters
that connect to a server; see also tests/integration/opcua/test_commands.py, and the contract's sleeping devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from conformance.adapters.iotagent.rig import JsonSpeech, MqttDeviceRig, UltralightSpeech
from conformance.adapters.lorawan.rig import BrokerRig
from conformance.adapters.modbus.rig import PymodbusRig
from conformance.adapters.mqtt.rig import MqttRig
from conformance.adapters.sparkplug.rig import SparkplugRig
from support.mqtt_device import MqttDevice
from support.simulated import now_ms

from flexrelay_sdk import Command, CommandState
from flexrelay_sdk.testkit import Life, RecordingSink, running, until

PATIENCE_S = 60.0
RIGS: dict[str, Callable[[Path], AbstractAsyncContextManager[Any]]] = {
    "modbus": lambda folder: PymodbusRig.open(),
    "mqtt": lambda folder: MqttRig.open(folder, "5"),
    "mqtt 3.1.1": lambda folder: MqttRig.open(folder, "3.1.1"),
    "ultralight": lambda folder: MqttDeviceRig.open(folder, UltralightSpeech()),
    "fiware_json": lambda folder: MqttDeviceRig.open(folder, JsonSpeech()),
    "sparkplug": lambda folder: SparkplugRig.open(folder, "5"),
    "chirpstack": lambda folder: BrokerRig.open("chirpstack", folder),
    "things_stack": lambda folder: BrokerRig.open("things_stack", folder),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "modbus" else [pytest.mark.mosquitto]) for name in RIGS]
)
async def test_a_command_waits_and_an_expired_one_is_never_sent(name: str, tmp_path: Path) -> None:
    async with RIGS[name](tmp_path) as rig:
        adapter, (kind, parameters) = rig.adapter(), rig.command()

        def execute(command_id: str, power_w: int, lasts_ms: int, life: Life) -> Any:
            told, expires_at = {**parameters, "power_w": power_w}, now_ms() + lasts_ms
            return adapter.execute(Command(command_id, "did:x", rig.credential, kind, told, expires_at, "order"), life)

        async with running(adapter, RecordingSink(), connect_s=PATIENCE_S):
            kept, late, wanted_w = Life(), Life(), parameters["power_w"]
            async with rig.outage():
                await until(lambda: not adapter.connected, PATIENCE_S, "the loss of the connection")
                waiting = asyncio.create_task(execute("kept", wanted_w, 120_000, kept))
                await execute("late", 2 * wanted_w, 300, late)
                assert not waiting.done()
            if isinstance(rig, MqttDevice):  # the device has lost its connection, too
                await rig.sleep()
                await rig.wake()
            await waiting
            late.check()
            kept.check()
            assert late.states == [CommandState.QUEUED, CommandState.EXPIRED]
            assert kept.states == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]
            assert [act["power_w"] for _, act in rig.acts()] == [wanted_w]
