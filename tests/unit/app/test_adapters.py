"""Adapters are made by their entry points, and a mistake in a section is named by its key."""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from flexrelay.adapters import command_target, load_adapter
from flexrelay.config import ConfigError
from flexrelay_adapters.mqtt import MqttAdapter
from flexrelay_sdk import Command, CommandEnder, CommandTarget, CommandUpdate

SECTION: dict[str, Any] = {
    "type": "mqtt",
    "client_id": "gateway",
    "port": 1884,
    "readings": ["site/{device}/readings"],
}


def test_a_section_becomes_its_adapter(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n")
    section = {**SECTION, "username": "gateway", "password_file": "secret"}
    adapter = load_adapter("dso", "field", section, tmp_path)
    assert isinstance(adapter, MqttAdapter) and isinstance(adapter, CommandTarget)
    assert (adapter.name, adapter.protocol, adapter.endpoint) == ("field", "mqtt", "127.0.0.1:1884")
    assert adapter.channels_for("m1") == ["site/m1/readings"]
    assert adapter.codec_for("site/m1/readings") is not None
    assert adapter.codec_for("other/m1/readings") is None
    assert not adapter.can_command
    assert adapter.config.password is not None and "hush" not in repr(adapter.config)


def test_paths_of_a_section_are_within_the_data_folder(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-")
    adapter = load_adapter("dso", "field", {**SECTION, "tls": {"ca": "ca.pem"}}, tmp_path)
    assert isinstance(adapter, MqttAdapter) and adapter.config.tls is not None
    assert adapter.config.tls.ca == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"type": "telepathy"}, "gateways.dso.adapters.field.type: 'telepathy' is not installed; there are .*mqtt"),
        ({"prot": 1}, "gateways.dso.adapters.field.prot"),
        ({"port": 0}, "gateways.dso.adapters.field.port"),
        ({"password_file": "nowhere"}, "gateways.dso.adapters.field.password_file"),
        ({"readings": ["no/device"]}, "gateways.dso.adapters.field.readings"),
        ({"tls": {"ca": "nowhere.pem"}}, "gateways.dso.adapters.field.*tls.ca: there is no file"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        load_adapter("dso", "field", {**SECTION, **change}, tmp_path)


def test_a_secret_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"gateways\.dso\.adapters\.field\.password_file: .*secret: not UTF-8"):
        load_adapter("dso", "field", {**SECTION, "password_file": "secret"}, tmp_path)


def test_an_adapter_whose_package_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = EntryPoint("absent", "no_such_package_here:make_adapter", "flexrelay.adapters")
    monkeypatch.setattr("flexrelay.adapters.entry_points", lambda group: [absent])
    with pytest.raises(ConfigError, match=r"field\.type: 'absent' needs a package .* 'no_such_package_here'"):
        load_adapter("dso", "field", {**SECTION, "type": "absent"}, tmp_path)


class Commanded:
    """An adapter as far as a command sees it."""

    def __init__(self, protocol: str, able: bool = True) -> None:
        self.protocol = protocol
        self.can_command = able
        self.got: list[Command] = []
        self.ended: list[Command] = []

    async def execute(self, command: Command, on_update: Any) -> None:
        self.got.append(command)

    def must_end(self, command: Command) -> bool:
        return True

    async def end(self, command: Command, before: Command | None = None) -> None:
        self.ended.append(command)


@pytest.mark.parametrize(
    ("bindings", "protocol", "credential"),
    [
        ((), "mqtt", "scid"),
        ((("lwm2m", "urn:7"),), "lwm2m", "urn:7"),
        ((("sigfox", "s"), ("opcua", "ns=2;s=7"), ("lwm2m", "urn:7")), "lwm2m", "urn:7"),
        ((("opcua", "x"),), "", ""),
    ],
)
async def test_a_command_goes_to_the_adapter_of_the_devices_protocol(
    bindings: tuple[tuple[str, str], ...], protocol: str, credential: str
) -> None:
    adapters = {"a": Commanded("mqtt"), "b": Commanded("opcua", able=False), "c": Commanded("lwm2m")}
    target = command_target("dso", adapters, lambda did: bindings)  # type: ignore[arg-type]  # see Commanded
    assert target.can_command
    told: list[CommandUpdate] = []

    async def tell(update: CommandUpdate) -> None:
        told.append(update)

    await target.execute(Command("c1", "did:x", "scid", "set_power", {}, 9, "o"), tell)
    assert {a.protocol: a.got[0].credential for a in adapters.values() if a.got} == (
        {protocol: credential} if protocol else {}
    )
    if not protocol:
        assert [(update.state.value, update.detail) for update in told] == [
            ("failed", "the device is bound to opcua; adapters of dso command over lwm2m, mqtt")
        ]


async def test_a_revoked_device_is_commanded_no_more_but_what_it_does_is_ended() -> None:
    adapter = Commanded("mqtt")
    adapters: dict[str, Any] = {"a": adapter}
    barred = {"did:x": "did:x is deactivated"}
    target = command_target("dso", adapters, barred=lambda did: barred.get(did, ""))
    told: list[CommandUpdate] = []

    async def tell(update: CommandUpdate) -> None:
        told.append(update)

    revoked, other = (Command(did, did, "scid", "set_power", {}, 9, "o") for did in ("did:x", "did:y"))
    for command in (revoked, other):
        await target.execute(command, tell)
    assert adapter.got == [other]
    assert [(update.command_id, update.state.value, update.detail) for update in told] == [
        ("did:x", "failed", "did:x is deactivated")
    ]
    assert isinstance(target, CommandEnder) and target.must_end(revoked)
    await target.end(revoked)
    assert adapter.ended == [revoked]
