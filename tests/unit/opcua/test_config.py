"""The configuration: what is refused, and with which words."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import flexrelay_adapters.opcua
from flexrelay_adapters.opcua import OpcuaConfig, make_adapter
from flexrelay_adapters.opcua.commands import Impossible, argument_of
from flexrelay_adapters.opcua.config import Argument
from flexrelay_adapters.opcua.state import Resume
from flexrelay_sdk import Ability, Command, abilities

README = Path(flexrelay_adapters.opcua.__file__).parent / "README.md"


class Unused:
    def decode(self, frame: Any) -> Any:
        raise AssertionError("OPC UA has its own codec")


def section(**more: Any) -> dict[str, Any]:
    registers = {"power_w": {"node": "ns=2;s=P", "unit": "kW"}}
    values = {"url": "opc.tcp://127.0.0.1:4840", "security": "None", "devices": {"m": {"registers": registers}}}
    return {**values, **more}


def test_the_readme_sample_is_a_configuration() -> None:
    (sample,) = re.findall(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)
    ((name, values),) = tomllib.loads(sample)["adapters"].items()
    adapter = make_adapter(name, values, Path("/data"), Unused())
    assert adapter.config.pki == Path("/data/pki") and adapter.can_command
    assert [device for device, _, _ in adapter.config.nodes()]
    (channel,) = adapter.channels_for(adapter.config.credential("battery-1"))
    assert adapter.codec_for(channel) is not None and adapter.codec_for("other") is None


def test_abilities_are_told_by_the_factory() -> None:
    expected = {Ability.READINGS, Ability.COMMANDS, Ability.DISCOVERY, Ability.BACKFILL, Ability.FACTS}
    assert abilities(make_adapter) == expected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"url": "http://x"}, "url: "),
        ({"url": "opc.tcp://user:word@host"}, "url: "),
        ({"security": "Basic128Rsa15"}, "security: "),
        ({"security": "Basic256Sha256"}, "server is missing"),
        ({"password": "x"}, "password without username"),
        ({"username": "u", "user_certificate": "c", "user_key": "k"}, "exclude each other"),
        ({"user_key": "k"}, "belong together"),
        ({"url": "opc.tcp://plant:4840", "username": "u", "password": "x"}, "must not go over the network"),
        ({"devices": {}}, "devices: "),
        (
            {"devices": {"m": {"registers": {"power_w": {"node": "P", "unit": "W"}}}}},
            "registers.power_w.node",
        ),
        ({"devices": {"m": {"registers": {"power_w": {"node": "i=1", "unit": "kWh"}}}}}, "cannot be given in kWh"),
        ({"devices": {"m": {"registers": {"speed": {"node": "i=1", "unit": "W"}}}}}, "unknown register"),
        ({"unknown": 1}, "unknown is not a known key"),
    ],
)
def test_what_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        OpcuaConfig.from_section("t", section(**change))


@pytest.mark.parametrize(
    ("route", "words"),
    [
        ({}, "either write or object and method"),
        ({"write": "i=1"}, "exactly one argument"),
        ({"method": "i=1"}, "belong together"),
        ({"object": "i=1", "method": "i=2"}, "command_id among its arguments, or repeatable"),
        ({"write": "i=1", "arguments": [{"parameter": "power_w", "unit": "kWh"}]}, "cannot be given in kWh"),
    ],
)
def test_routes_that_are_refused(route: dict[str, Any], words: str) -> None:
    devices = section()["devices"]
    devices["m"]["commands"] = {"set_power": route}
    with pytest.raises(ValueError, match=re.escape(words)):
        OpcuaConfig.from_section("t", section(devices=devices))


def test_arguments_of_commands() -> None:
    command = Command("id-1", "did:x", "c", "set_power", {"power_w": -1500, "on": 1}, 1_700_000_000_000, "o")

    def given(**values: Any) -> tuple[str, Any]:
        return argument_of(Argument.model_validate(values), command)

    assert given(parameter="power_w", unit="kW") == ("Double", -1.5)
    assert given(parameter="power_w", unit="kW", negate=True, scale=-1, type="Int16") == ("Int16", 15)
    assert given(parameter="on", type="Boolean") == ("Boolean", True)
    assert given(parameter="command_id") == ("String", "id-1")
    assert given(parameter="expires_at")[1].timestamp() == 1_700_000_000
    for wrong in ({"parameter": "power_w", "type": "UInt16"}, {"parameter": "energy_j"}):
        with pytest.raises(Impossible):
            given(**wrong)


def test_what_is_remembered_survives_and_rubbish_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x" / "plant.json"
    resume = Resume("layout", 7, 9, 1000.0, 10.0, 1_700_000_000_000, {1: 2})
    resume.write(path)
    assert Resume.read(path) == resume
    for rubbish in ("", "[]", "{}", '{"newest": 1}', '{"newest": {"a": "b"}}'):
        path.write_text(rubbish)
        assert Resume.read(path) == Resume()
    assert Resume.read(tmp_path / "none") == Resume()
