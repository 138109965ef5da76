"""Simulated devices that speak Ultralight 2.0 over MQTT: what the group `flexrelay.simulators` names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flexrelay_adapters.iotagent.simulator import UltralightDevice, simulator_of
from flexrelay_adapters.mqtt.simulator import MqttSimulator
from flexrelay_sdk.simulation import DeviceSimulator, Plan


def make_simulator(
    section: Mapping[str, Any], folder: Path, devices: Sequence[DeviceSimulator], plan: Plan, seed: str
) -> MqttSimulator:
    """See `flexrelay_sdk.simulation.SimulatorFactory`."""
    return simulator_of(UltralightDevice, "ul", section, devices, plan)
