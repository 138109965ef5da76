"""`flexrelay deadletter`: refused frames are listed, shown, and come in again once their cause is gone."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.pilot import READINGS, answer, flexrelay, signed_frame

from flexrelay.app import Level, open_site
from flexrelay.cli.instant import iso
from flexrelay.config import load
from flexrelay.ingest import NativeCodec
from flexrelay_sdk import Frame, Outcome

Copy = Callable[[Path], Path]
ADAPTER = """
[gateways.adapters.field]
type = "mqtt"
host = "127.0.0.1"
port = 9
client_id = "gateway-agg"
readings = ["pilot/{device}/readings"]
"""


def put(folder: Path, *frames: Frame) -> None:
    async def work() -> None:
        async with open_site(folder, load(folder), Level.SERVING) as site:
            for receipt in await site.gateways["agg"].ingest.put(frames, NativeCodec()):
                assert receipt.outcome is Outcome.DEAD_LETTER, receipt

    asyncio.run(work())


@pytest.fixture
def folder(populated: Path, copy_of: Copy) -> Path:
    """With one frame under a name that nobody is bound to, and one that is no reading at all."""
    folder = copy_of(populated)
    config = folder / "flexrelay.toml"
    config.write_text(config.read_text() + ADAPTER)
    shown = answer("device", "show", folder, "m1")
    good = signed_frame(shown["did"], folder / "devices" / "agg" / "m1.pem", READINGS + 1)
    stranger = good._replace(credential="meter-7", channel="pilot/meter-7/readings")
    put(folder, stranger, good._replace(payload=b"\xff nonsense"))
    return folder


def test_letters_are_listed_and_shown(folder: Path) -> None:
    listed = answer("deadletter", "list", folder, "--org", "agg")
    assert (listed["kept"], listed["dropped"]) == (2, 0)
    first, second = listed["letters"]
    assert answer("deadletter", "list", folder, "--org", "agg", "--reason", second["reason"])["letters"] == [second]
    assert answer("deadletter", "list", folder, "--org", "agg", "--after", first["id"])["letters"] == [second]
    assert (first["device"], second["device"]) == ("", "m1"), "a stranger, and whoever is enrolled under this name"
    told = flexrelay("deadletter", "list", folder, "--org", "agg").stdout
    assert "meter-7" in told and "m1" in told
    shown = answer("deadletter", "show", folder, second["id"], "--org", "agg")
    assert shown["device"] == "m1"
    assert shown["payload_text"] == "\\xff nonsense"
    assert iso(shown["received_at"]) in flexrelay("deadletter", "show", folder, second["id"], "--org", "agg").stdout
    assert flexrelay("deadletter", "show", folder, 99, "--org", "agg").exit_code == 2
    for beyond in (("show", folder, 2**63), ("list", folder, "--after", 2**63), ("redrive", folder, 2**63)):
        assert flexrelay("deadletter", *beyond, "--org", "agg").exit_code == 2
    assert flexrelay("deadletter", "list", folder, "--org", "dso").exit_code == 0


def test_a_letter_comes_in_after_its_cause_is_gone(folder: Path) -> None:
    first, second = answer("deadletter", "list", folder, "--org", "agg")["letters"]
    still = answer("deadletter", "redrive", folder, first["id"], "--org", "agg")
    assert still["stored"] == 0 and list(still["refused"].values()) == [1]
    letters = answer("deadletter", "list", folder, "--org", "agg")["letters"]
    assert letters[0] == second and letters[1]["reason"] == first["reason"]

    device = ("--org", "agg", "--name", "m1", "--kind", "meter", "--controller", "owner")
    bound = answer("device", "add", folder, *device, "--credential", "mqtt:meter-7")
    assert bound["topics"] == {"agg": ["pilot/meter-7/readings"]}
    done = answer("deadletter", "redrive", folder, "--org", "agg", "--all", "--reason", first["reason"])
    assert (done["stored"], done["refused"]) == (1, {})
    assert answer("deadletter", "list", folder, "--org", "agg")["kept"] == 1
    assert answer("custody", "verify", folder, "--org", "agg")["verified"]


def test_letters_that_there_are_not_are_named_and_the_others_come_in(folder: Path) -> None:
    ids = [letter["id"] for letter in answer("deadletter", "list", folder, "--org", "agg")["letters"]]
    redrive = ("deadletter", "redrive", folder, "--org", "agg")
    result = flexrelay(*redrive, 98, ids[0], ids[0], 99)
    assert result.exit_code == 2
    assert "agg has no dead letter 98, 99" in result.stderr and "0 stored" in result.stdout
    told = flexrelay(*redrive, ids[0], ids[1], "--json")  # the first one has another id now
    done = json.loads(told.stdout)
    assert told.exit_code == 2
    assert (done["asked"], done["unknown"], sum(done["refused"].values())) == (2, [ids[0]], 1)


@pytest.mark.parametrize("arguments", [(), ("1", "--all")])
def test_which_letters_must_be_said(folder: Path, arguments: tuple[str, ...]) -> None:
    result = flexrelay("deadletter", "redrive", folder, *arguments, "--org", "agg")
    assert result.exit_code == 2 and "--all" in result.stderr
