"""Registrations, their store and their parameters; keys, accounts, commands and the configuration."""

from __future__ import annotations

import asyncio
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import flexrelay_adapters.lwm2m
from flexrelay_adapters.lwm2m import Lwm2mConfig, make_adapter
from flexrelay_adapters.lwm2m.bootstrap import read_accounts
from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.config import CommandConfig
from flexrelay_adapters.lwm2m.dtls.keys import KeyFile, parse_keys
from flexrelay_adapters.lwm2m.firewall import Firewall
from flexrelay_adapters.lwm2m.formats import FormatError
from flexrelay_adapters.lwm2m.links import links_text, parse_links
from flexrelay_adapters.lwm2m.orders import Unfit, begins_s, must_end, plan
from flexrelay_adapters.lwm2m.registration import BadRegistration, Parameters, Registrations
from flexrelay_adapters.lwm2m.store import RegistrationStore
from flexrelay_sdk import Command
from flexrelay_sdk.quality.check import NoNativeCodec

OBJECTS = ((1, 0), (3305, 0))
README = Path(flexrelay_adapters.lwm2m.__file__).parent / "README.md"


def peer(host: str = "10.0.0.1", credential: str = "meter", *, secure: bool = True) -> Peer:
    return Peer((host, 5683), credential, secure, lambda data: None)


def test_parameters() -> None:
    said = Parameters.of(["ep=meter", "lt=300", "lwm2m=1.1", "b=U", "Q"])
    assert said == Parameters("meter", 300, "1.1", True)
    assert Parameters.of(["lt=99999999999"[:13], "b=UQ"]).queue is True
    assert Parameters.of([]) == Parameters()
    for bad in ("lt=-1", "lt=0", "lt=x", "lt=" + "9" * 20, "lwm2m=9", "ep=", "ep=" + "x" * 300):
        with pytest.raises(BadRegistration):
            Parameters.of([bad])


def test_object_lists() -> None:
    assert parse_links(b'</>;rt="oma.lwm2m";ct="110 112",</1/0>;ver=1.1,</3305/0>,</5>') == ((1, 0), (5,), (3305, 0))
    assert parse_links(b'</lwm2m>;rt="oma.lwm2m", </lwm2m/1/0>, </lwm2m/3305/0>') == OBJECTS
    assert parse_links(b"</1/0>,</.well-known/core>,</sensors/temp>;if=x") == ((1, 0),)
    assert parse_links(links_text(OBJECTS).encode()) == OBJECTS
    for bad in (b"1/0", b"</1/0", b"\xff", b'</1/0>;a="b', ",".join(["</1/0>"] * 2_000).encode()):
        with pytest.raises(FormatError):
            parse_links(bad)


def test_a_credential_has_one_registration() -> None:
    registrations = Registrations(2, awake_s=10)
    first = registrations.register(peer(), Parameters("a"), OBJECTS, 100.0)
    again = registrations.register(peer(), Parameters("b"), OBJECTS, 100.0)
    assert len(registrations) == 1 and registrations.find(first.id, peer()) is None
    assert registrations.find(again.id, peer()) is again
    assert registrations.find(again.id, peer(credential="other")) is None
    registrations.register(peer(credential="other"), Parameters("a"), OBJECTS, 100.0)
    with pytest.raises(BadRegistration, match="room"):
        registrations.register(peer(credential="third"), Parameters("a"), OBJECTS, 100.0)
    with pytest.raises(BadRegistration, match="ep"):
        registrations.register(peer(secure=False), Parameters(), OBJECTS, 100.0)
    with pytest.raises(BadRegistration, match="objects"):
        registrations.register(peer(), Parameters("a"), (), 100.0)


def test_lifetime_and_queue_mode() -> None:
    registrations = Registrations(10, awake_s=10)
    registration = registrations.register(peer(), Parameters("a", 60, "1.1", True), OBJECTS, 100.0)
    assert registrations.reachable(registration, 109.0) and not registrations.reachable(registration, 111.0)
    assert registrations.expired(159.0) == [] and registrations.expired(160.0) == [registration]
    registrations.update(registration, peer("10.0.0.9"), Parameters(lifetime_s=120), None, 150.0)
    assert registration.address == ("10.0.0.9", 5683) and registrations.expired(260.0) == []
    assert registrations.reachable(registration, 155.0)
    registrations.remove(registration)
    assert len(registrations) == 0 and not registrations.reachable(registration, 155.0)


async def test_waiting_for_a_device() -> None:
    registrations = Registrations(10, awake_s=10)
    waiting = asyncio.create_task(registrations.heard("meter"))
    given_up = asyncio.create_task(registrations.heard("meter"))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    registrations.register(peer(), Parameters("a"), OBJECTS, 100.0)
    await waiting
    assert registrations._waiters == {}


def test_the_store_keeps_registrations(tmp_path: Path) -> None:
    registrations = Registrations(10, awake_s=10)
    first = registrations.register(peer(), Parameters("a", 60, "1.1", True), OBJECTS, 100.0)
    second = registrations.register(peer(credential="other"), Parameters("b"), OBJECTS, 100.0)
    store = RegistrationStore(tmp_path / "deep" / "r.db")
    store.write([first.row(), second.row()], [], [])
    store.write([], [(200.0, "10.0.0.2", 9, 1, 77, 0, first.id)], [(second.id,)])
    store.close()
    again = RegistrationStore(tmp_path / "deep" / "r.db")
    (loaded,) = again.load()
    assert (loaded.id, loaded.credential, loaded.objects, loaded.version) == (first.id, "meter", OBJECTS, "1.1")
    assert (loaded.seen_at, loaded.address, loaded.lifetime_s, loaded.queue) == (200.0, ("10.0.0.2", 9), 77, False)
    again.close()
    (tmp_path / "other.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(ValueError, match=r"other\.db"):
        RegistrationStore(tmp_path / "other.db")


def test_keys(tmp_path: Path) -> None:
    assert parse_keys("# meters\n\nurn:dev:7:0011223344556677\n") == {"urn:dev:7": bytes.fromhex("0011223344556677")}
    secret = "0011223344556677"
    for text, why in (
        ("meter", "expected"),
        (f":{secret}", "expected"),
        (f"udp:10.0.0.1:{secret}", "expected"),
        ("meter:xyz", "not hexadecimal"),
        ("meter:0011", "2 bytes"),
        (f"meter:{secret}\nmeter:{secret}", "twice"),
    ):
        with pytest.raises(ValueError, match=why) as error:
            parse_keys(text)
        assert secret not in str(error.value)
    path = tmp_path / "keys"
    path.write_text(f"meter:{secret}\n")
    keys = KeyFile(path)
    assert keys.find("meter") == bytes.fromhex(secret) and keys.find("other") is None
    path.write_text(f"meter:{secret}\nother:{secret}\n")
    keys._checked = 0.0
    assert keys.find("other") is not None
    path.write_text("nonsense")
    keys._checked = 0.0
    assert keys.find("other") is not None and "line 1" in keys.trouble  # the former keys stay
    with pytest.raises(ValueError, match="line 1"):
        KeyFile(path)


def test_the_firewall() -> None:
    now = [0.0]
    firewall = Firewall(["10.0.0.0/8", "fd00::/8"], 60, lambda: now[0])
    assert firewall.admits("10.1.2.3") and firewall.admits("::ffff:10.1.2.3") and firewall.admits("fd00::1")
    assert not firewall.admits("192.168.1.1") and not firewall.admits("nonsense")
    firewall.refuse("meter")
    assert firewall.refuses("meter") and not firewall.refuses("other")
    now[0] = 61.0
    assert not firewall.refuses("meter") and firewall._refused == {}


def command(name: str, **parameters: int) -> Command:
    return Command("cmd-1", "did:x", "meter", name, parameters, 1_700_000_000_000, "order")


def test_what_commands_write() -> None:
    config = CommandConfig(rated_w=10_000)
    written = plan(command("set_power", power_w=4_200, from_ms=1_700_000_000_000, until_ms=1_700_000_900_000), config)
    assert (written.path, dict(written.effect)) == ("/3310/0", {"power_w": 4_200})
    assert written.values == {"5823": "cmd-1", "5824": 1_700_000_000, "5825": 15, "5827": 42}
    dimmed = plan(command("set_power", power_w=0), CommandConfig(rated_w=10_000, via="power_control", instance=2))
    assert (dimmed.path, dimmed.values) == ("/3312/2", {"5850": False, "5851": 0})
    switched = plan(command("switch", on=0), CommandConfig(rated_w=10_000, via="power_control"))
    assert (switched.path, switched.values) == ("/3312/0", {"5850": False})
    assert plan(command("set_low_battery", soc_permille=150), config).values == {"5": 15}
    assert plan(command("clear_battery_shutdown"), config).values == {"7": False}
    both_ways = CommandConfig(rated_w=10_000, via="set_point", instance=1)
    set_point = plan(
        command("set_power", power_w=-4_321, from_ms=1_700_000_000_000, until_ms=1_700_000_900_000), both_ways
    )
    assert (set_point.path, dict(set_point.effect)) == ("/", {"power_w": -4_321})
    event = {"/3310/1/5823": "cmd-1", "/3310/1/5824": 1_700_000_000, "/3310/1/5825": 15}
    assert set_point.values == {**event, "/3308/1/5900": -4_321.0}
    for power_w in (-10_001, 10_001):
        with pytest.raises(Unfit, match="a set point can say -10000 to 10000 W"):
            plan(command("set_power", power_w=power_w), both_ways)
    for bad in (
        command("set_power"),
        command("set_power", power_w=-1),
        command("set_power", power_w=10_001),
        command("set_low_battery", soc_permille=1001),
        command("switch", on=0),
        command("fly"),
    ):
        with pytest.raises(Unfit):
            plan(bad, config)
    with pytest.raises(Unfit, match="on is 1 or 0"):
        plan(command("switch", on=2), CommandConfig(rated_w=10_000, via="power_control"))


def test_when_commands_are_written_and_which_have_an_end() -> None:
    load = CommandConfig(rated_w=10_000)
    soon = CommandConfig(rated_w=10_000, lead_s=60)
    relay = CommandConfig(rated_w=10_000, via="power_control", lead_s=60)
    # market time lags behind the wall's: the window begins 900 s before the command expires
    tomorrow = command("set_power", power_w=1, from_ms=1_600_000_000_000, until_ms=1_600_000_900_000)
    assert [begins_s(tomorrow, each) for each in (load, soon, relay)] == [0.0, 1_699_999_040.0, 1_699_999_100.0]
    assert begins_s(command("set_power", power_w=1), relay) == 0.0, "no window"
    assert [must_end(tomorrow, each) for each in (load, soon, relay)] == [False, False, True]
    assert must_end(command("switch", on=0), relay) and not must_end(command("set_low_battery", soc_permille=1), relay)


def test_bootstrap_accounts(tmp_path: Path) -> None:
    samples = re.findall(r"```json\n(.*?)```", README.read_text(), re.DOTALL)
    path = tmp_path / "accounts.json"
    path.write_text(samples[0])
    account = read_accounts(path)["boot-meter-1"]
    assert account.security()["3"] == b"meter-1" and account.server()["1"] == 86_400
    path.write_text('{"x": {"uri": "coaps://h", "mode": "psk"}}')
    with pytest.raises(ValueError, match="psk needs"):
        read_accounts(path)


def test_the_readme_sample_is_a_configuration(tmp_path: Path) -> None:
    (sample,) = re.findall(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)
    adapter = make_adapter("field", tomllib.loads(sample)["adapters"]["field"], tmp_path, NoNativeCodec())
    assert adapter.can_command and not adapter.connected
    assert adapter.endpoint == "coap://10.64.0.1:5683 coaps://0.0.0.0:5684"
    assert adapter.config.state == tmp_path / "lwm2m-field.db"
    assert adapter.config.coaps is not None and adapter.config.coaps.psk_file == tmp_path / "secrets/lwm2m.psk"
    with pytest.raises(ValueError, match=r"^bootstrap_file: there is no file"):
        adapter.validate()


@pytest.mark.parametrize(
    ("section", "why"),
    [
        ({}, "give coap"),
        ({"coap": {"port": 70_000}}, r"^coap\.port"),
        ({"coap": {"allow": ["10.0.0.1/8"]}}, r"^coap\.allow"),
        ({"coaps": {}}, "psk_file"),
        ({"coaps": {"ca": "x"}}, "certificate and key"),
        ({"coap": {}, "nonsense": 1}, "^nonsense"),
        ({"coap": {}, "observe": ["/a"]}, "^observe"),
        ({"coap": {}, "overrides": {"/3305/0": {}}}, "resource path"),
        ({"coap": {}, "overrides": {"/3305/0/1": {"register": "power_w", "unit": "V"}}}, "cannot be given"),
        ({"coap": {}, "overrides": {"/3305/0/1": {"register": "speed", "unit": "V"}}}, "unknown register"),
        ({"coap": {}, "pmin_s": 10, "pmax_s": 5}, "pmax_s"),
        ({"coap": {}, "commands": {"rated_w": 0}}, r"^commands\.rated_w"),
        ({"coap": {}, "attributes": {"/3305/0/5800": {"gt": 1}}}, "list the path in observe"),
        ({"coap": {}, "observe": ["/3305/0"], "attributes": {"/3305/0": {"gt": 1}}}, "are of a resource"),
        ({"coap": {}, "observe": ["/1"], "attributes": {"/1": {"pmin": 5, "pmax": 4}}}, "pmin 5 is more"),
        ({"coap": {}, "observe": ["/1/0/1"], "attributes": {"/1/0/1": {"gt": 5, "lt": 1, "st": 2}}}, "less than gt"),
        ({"coap": {}, "observe": ["/1/0/1"], "attributes": {"/1/0/1": {"gt": float("nan")}}}, "gt"),
    ],
)
def test_bad_configurations_are_named(section: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Lwm2mConfig.from_section("field", section)
