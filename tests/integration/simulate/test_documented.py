"""The configurations in docs/howto/simulate-devices.md are those that understand the simulated devices."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from support.simulated import devices, plan

from flexrelay_adapters import lorawan, modbus, opcua_pubsub, sigfox
from flexrelay_adapters.lorawan.simulator import adapter_section as lorawan_section
from flexrelay_adapters.modbus.simulator import make_simulator as make_modbus
from flexrelay_adapters.opcua_pubsub.simulator import adapter_section as opcua_pubsub_section
from flexrelay_adapters.sigfox.simulator import adapter_section as sigfox_section
from flexrelay_sdk.quality.check import NoNativeCodec

PAGE = Path(__file__).parents[3] / "docs/howto/simulate-devices.md"


def documented() -> dict[str, dict[str, Any]]:
    """Adapter's type → its section."""
    found = {}
    for block in re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL):
        (section,) = tomllib.loads(block)["gateways"]["adapters"].values()
        found[section.pop("type")] = section
    return found


def test_lorawan() -> None:
    section = documented()["lorawan"]
    understood = lorawan_section()
    made = lorawan.LorawanConfig.from_section("x", section)
    assert made == lorawan.LorawanConfig.from_section("x", {**section, **understood})
    lorawan.make_adapter("x", section, Path(), NoNativeCodec())


def test_sigfox() -> None:
    section = documented()["sigfox"]
    made = sigfox.SigfoxConfig.from_section("x", section)
    assert made == sigfox.SigfoxConfig.from_section("x", {**section, **sigfox_section(state_of_charge=True)})


def test_opcua_pubsub() -> None:
    section = documented()["opcua_pubsub"]
    made = opcua_pubsub.PubSubConfig.from_section("x", section)
    assert made == opcua_pubsub.PubSubConfig.from_section("x", {**section, **opcua_pubsub_section()})


def test_modbus(tmp_path: Path) -> None:
    made = modbus.ModbusConfig.from_section("x", documented()["modbus"])
    simulated = make_modbus({}, tmp_path, devices(), plan(), "a").adapter_section()
    for name, device in made.devices.items():
        told = simulated[name]
        told.pop("serial")
        assert device == type(device).model_validate(told)
