"""Abilities are seen in the methods; commands have one vocabulary; readings confirm them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_adapters.mqtt import MqttAdapter, make_adapter
from flexrelay_sdk import Ability, Command, CommandState, abilities
from flexrelay_sdk.vocabulary import COMMANDS, check, confirms


class Plain:
    name = protocol = endpoint = ""
    connected = False
    validate = run = channels_for = codec_for = lambda self: None


class All(Plain):
    can_command = True
    execute = discover = backfill = sync_time = facts = lambda self: None


def make_all() -> All:
    return All()


def make_maybe() -> All | None:
    return None


def make_unsaid():  # type: ignore[no-untyped-def]  # that is the case tested
    return All()


@pytest.mark.parametrize("subject", [All, All(), make_all, make_maybe])
def test_abilities_of_a_class_an_adapter_and_a_factory(subject: Any) -> None:
    assert abilities(subject) == frozenset(Ability)


def test_only_what_is_there_counts() -> None:
    assert abilities(Plain) == {Ability.READINGS}
    assert abilities(MqttAdapter) == abilities(make_adapter) == {Ability.READINGS, Ability.COMMANDS}
    assert abilities(object()) == frozenset()
    with pytest.raises(TypeError, match="make_unsaid must say which class"):
        abilities(make_unsaid)


WINDOW = {"from_ms": 1_000, "until_ms": 2_000}


def command(name: str, **values: int) -> Command:
    return Command("c", "did:x", "x", name, {**WINDOW, **values}, 9_000, "o")


@pytest.mark.parametrize(
    ("told", "power_w", "shown"),
    [
        (command("set_power", power_w=4_000), 4_000, True),
        (command("set_power", power_w=4_000), 3_800, True),
        (command("set_power", power_w=4_000), 3_799, False),
        (command("set_power", power_w=4_000), -4_000, False),
        (command("set_power", power_w=0), 50, True),
        (command("set_power", power_w=0), -51, False),
        (command("set_power", power_w=-20_000), -19_000, True),
        (command("limit_power", min_power_w=-1_000, max_power_w=4_200), 4_200, True),
        (command("limit_power", min_power_w=-1_000, max_power_w=4_200), 4_410, True),
        (command("limit_power", min_power_w=-1_000, max_power_w=4_200), 4_411, False),
        (command("limit_power", min_power_w=-1_000, max_power_w=4_200), -1_051, False),
        (command("limit_power", min_power_w=-1_000, max_power_w=4_200), 0, True),
        (command("switch", on=0), 20, True),
        (command("switch", on=0), 200, False),
        (command("switch", on=1), 200, False),
        (command("dance", power_w=0), 0, False),
    ],
)
def test_a_reading_shows_that_it_is_done(told: Command, power_w: int, shown: bool) -> None:
    assert confirms(told, 1_500, {"power_w": power_w}) is shown
    assert confirms(told, 2_000, {"power_w": power_w}) is shown, "an average up to the end"
    for at in (1_000, 2_001, 0):
        assert not confirms(told, at, {"power_w": power_w})
    assert not confirms(told, 1_500, {"import_j": power_w})


@given(st.sampled_from([*COMMANDS, "x", ""]), st.dictionaries(st.text(max_size=12), st.integers(), max_size=5))
def test_what_is_no_command_is_told_in_words(name: str, parameters: dict[str, int]) -> None:
    assert check(name, parameters), "three parameters by name do not come by chance"


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("set_power", {**WINDOW, "power_w": 1}, ""),
        ("set_power", {**WINDOW}, "takes from_ms, power_w, until_ms; given are from_ms, until_ms"),
        ("set_power", {"from_ms": 2, "until_ms": 2, "power_w": 1}, "until_ms must be after"),
        ("limit_power", {**WINDOW, "min_power_w": 2, "max_power_w": 1}, "min_power_w is more"),
        ("switch", {**WINDOW, "on": 2}, "1 or 0"),
        ("dance", {}, "unknown command 'dance'; known are limit_power, set_power, switch"),
    ],
)
def test_the_vocabulary(name: str, parameters: dict[str, int], says: str) -> None:
    assert says in check(name, parameters) and bool(says) == bool(check(name, parameters))


def test_nothing_more_is_sent_after_the_end() -> None:
    ends = {state for state in CommandState if state.terminal}
    assert ends == set(CommandState) - {CommandState.QUEUED, CommandState.SENT}
