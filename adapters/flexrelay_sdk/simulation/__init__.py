"""Simulated devices without a protocol: meters, PV inverters, batteries, EV chargers and heat pumps.

They follow a `Profile`, obey the commands of `flexrelay_sdk.vocabulary` and are deterministic by seed. An adapter's
simulator gives them a protocol: a `ProtocolSimulator`, made by an entry point of the group `flexrelay.simulators`.
"""

from flexrelay_sdk.simulation.devices import Battery, EvCharger, HeatPump, Meter, PvInverter
from flexrelay_sdk.simulation.identity import SimulatedIdentity
from flexrelay_sdk.simulation.model import Model, Series
from flexrelay_sdk.simulation.port import Plan, ProtocolSimulator, SimulatorFactory, SimulatorStats
from flexrelay_sdk.simulation.profile import KINDS, DeviceSpec, Profile
from flexrelay_sdk.simulation.simulator import Answer, DeviceSimulator, Fault, Sample, make_devices

__all__ = [
    "KINDS",
    "Answer",
    "Battery",
    "DeviceSimulator",
    "DeviceSpec",
    "EvCharger",
    "Fault",
    "HeatPump",
    "Meter",
    "Model",
    "Plan",
    "Profile",
    "ProtocolSimulator",
    "PvInverter",
    "Sample",
    "Series",
    "SimulatedIdentity",
    "SimulatorFactory",
    "SimulatorStats",
    "make_devices",
]
