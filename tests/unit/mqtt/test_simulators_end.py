"""Simulators over MQTT end when they are cancelled, also where aiomqtt loses the cancellation while it connects."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from support.simulated import PROFILE, T0

import flexrelay_adapters.lorawan.simulator as lorawan
import flexrelay_adapters.mqtt.simulator as mqtt
import flexrelay_adapters.sparkplug.simulator as sparkplug
from flexrelay_adapters.mqtt.devices import check_lost
from flexrelay_sdk.simulation import Plan, Profile, ProtocolSimulator, make_devices


class Deaf(aiomqtt.Client):
    """Loses what cancels it while it connects, as `asyncio.wait_for` of Python 3.11 does at the wrong moment."""

    connecting: asyncio.Event

    async def __aenter__(self) -> Self:
        self.connecting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return self


Make = Callable[..., ProtocolSimulator]


@pytest.mark.parametrize("make", [mqtt.make_simulator, lorawan.make_simulator, sparkplug.make_simulator])
async def test_a_cancellation_that_connecting_swallows_still_ends_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiomqtt, "Client", Deaf)
    monkeypatch.setattr(Deaf, "connecting", asyncio.Event(), raising=False)
    section: dict[str, Any] = {"backoff_s": 0.01}
    devices = make_devices(Profile.model_validate(PROFILE), 2, "seed", T0)
    simulator = make(section, tmp_path, devices, Plan(T0, T0), "seed")
    task = asyncio.create_task(simulator.run())
    await Deaf.connecting.wait()
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=60)
    assert done and task.cancelled()


async def test_a_publish_without_a_connection_is_no_refusal() -> None:
    """paho's error 4, "not connected", is no return code 4 of CONNACK, "bad user name or password"."""
    with pytest.raises(aiomqtt.MqttCodeError) as caught:
        await aiomqtt.Client("127.0.0.1").publish("readings", b"1", qos=1)
    assert caught.value.rc == 4
    check_lost(ExceptionGroup("lost", [caught.value]), "broker:1883", "meter-1")


def test_a_refusal_beside_or_behind_another_error_is_named() -> None:
    refusal = aiomqtt.MqttCodeError(ReasonCode(PacketTypes.CONNACK, "Not authorized"))
    behind = aiomqtt.MqttCodeError(4, "Could not publish message")
    behind.__cause__ = refusal
    for errors in ([refusal], [aiomqtt.MqttError("gone"), refusal], [behind]):
        with pytest.raises(ConnectionError, match="turns meter-1 away"):
            check_lost(ExceptionGroup("lost", errors), "broker:1883", "meter-1")
