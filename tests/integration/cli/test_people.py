"""`flexrelay actor` and `flexrelay device` on a founded network."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from support.pilot import answer, flexrelay, signed_frame

from flexrelay.app import Level, open_site
from flexrelay.config import load
from flexrelay.ingest import NativeCodec
from flexrelay_sdk import Outcome, Receipt

Copy = Callable[[Path], Path]


def test_an_actors_life(founded: Path, copy_of: Copy) -> None:
    folder = copy_of(founded)
    who = (folder, "--org", "agg", "--label", "a1")
    made = answer("actor", "add", *who, "--role", "aggregator", "--market", "congestion-day-ahead")
    assert (made["status"], made["key_version"]) == ("active", 1)
    assert made["roles"] == {"aggregator": ["congestion-day-ahead"]}
    height = answer("ledger", "show", folder)["height"]
    assert answer("actor", "add", *who, "--role", "aggregator", "--market", "congestion-day-ahead") == made
    assert answer("ledger", "show", folder)["height"] == height, "asked again, nothing is written"

    assert answer("actor", "rotate", *who)["key_version"] == 2
    assert answer("actor", "add", *who, "--role", "brp")["roles"].keys() == {"aggregator", "brp"}, "the new key signs"
    assert answer("actor", "revoke", *who, "--role", "aggregator", "--reason", "test")["roles"] == {"brp": ["*"]}
    again = flexrelay("actor", "revoke", *who, "--role", "aggregator")
    assert again.exit_code == 3 and "not_granted" in again.stderr
    assert answer("actor", "add", *who, "--role", "aggregator")["roles"].keys() == {"aggregator", "brp"}
    listed = answer("actor", "list", folder, "--org", "agg")
    assert [actor["label"] for actor in listed] == ["a1"]
    assert answer("actor", "show", *who) == listed[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("actor", "add", "--org", "nobody", "--label", "x"), "has no gateway here"),
        (("actor", "add", "--org", "dso", "--label", "x", "--role", "king"), "role 'king' is unknown"),
        (("actor", "add", "--org", "dso", "--label", "gateway"), "is a gateway"),
        (("actor", "rotate", "--org", "dso", "--label", "x"), "has no 'x'"),
        (("device", "add", "--org", "agg", "--name", "a b", "--kind", "meter", "--controller", "x"), "device name"),
        (("device", "add", "--org", "agg", "--name", "d", "--kind", "toaster", "--controller", "x"), "toaster"),
        (("device", "add", "--org", "agg", "--name", "d", "--kind", "pv", "--controller", "x"), "has no 'x'"),
        (("device", "show", "nothing"), "no device 'nothing'"),
        (("device", "revoke", "nothing"), "no device 'nothing'"),
    ],
)
def test_what_is_not_there_is_said(founded: Path, arguments: tuple[str, ...], said: str) -> None:
    noun, verb, *rest = arguments
    result = flexrelay(noun, verb, founded, *rest)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


def put(folder: Path, did: str, key_file: Path, number: int) -> Receipt:
    async def work() -> Receipt:
        async with open_site(folder, load(folder), Level.SERVING) as site:
            gateway = site.gateways["agg"]
            (receipt,) = await gateway.ingest.put([signed_frame(did, key_file, number)], NativeCodec())
            async with asyncio.timeout(60):
                while gateway.twin.position < gateway.journal.end:  # noqa: ASYNC110 - the twin tells nobody
                    await asyncio.sleep(0.01)
            return receipt

    return asyncio.run(work())


def test_a_devices_life(populated: Path, copy_of: Copy, tmp_path: Path) -> None:
    folder = copy_of(populated)
    key = tmp_path / "own.pem"
    private = ed25519.Ed25519PrivateKey.generate()
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    add = ("device", "add", folder, "--org", "agg", "--controller", "owner", "--name", "m2", "--kind", "meter")
    made = answer(*add, "--key", key, "--receiver", "agg", "--receiver", "dso")
    assert made["status"] == "active" and made["receivers"] == ["agg", "dso"]
    assert answer(*add, "--key", key, "--receiver", "agg", "--receiver", "dso")["did"] == made["did"]
    assert [device["org"] for device in answer("device", "list", folder) if device["name"] == "m2"] == ["agg", "dso"]
    other = flexrelay(*add)
    assert other.exit_code == 2, "another key under the same name"

    assert put(folder, made["did"], key, 1).outcome is Outcome.STORED
    assert answer("device", "show", folder, "m2")["last_reading"] is not None
    assert answer("device", "declare-exchange", folder, "m2", "--at", "2026-03-02T01:00:00Z", "--import-final", "9")
    for at, final in (("9" * 20, "9"), ("2026-03-02T01:00:00Z", "9" * 20), ("2026-03-02T01:00:00Z", "-1")):
        wrong = flexrelay("device", "declare-exchange", folder, "m2", "--at", at, "--import-final", final)
        assert wrong.exit_code == 2, "a number beyond all bounds"
    assert answer("device", "revoke", folder, "m2", "--reason", "stolen")["status"] == "deactivated"
    refused = put(folder, made["did"], key, 2)
    assert (refused.outcome, refused.reason) == (Outcome.DEAD_LETTER, "device_deactivated")
    shown = answer("device", "show", folder, "m2")
    assert (shown["status"], shown["dead_letters"]) == ("deactivated", 1)
    assert flexrelay("device", "revoke", folder, "m2").exit_code == 3


def test_a_name_that_two_organisations_gave_is_nobodys_without_the_organisation(populated: Path, copy_of: Copy) -> None:
    """Revoking is for ever: it must not hit whoever comes first in the alphabet."""
    folder = copy_of(populated)
    theirs = answer("device", "show", folder, "m1")["did"]
    answer("actor", "add", folder, "--org", "dso", "--label", "grid", "--role", "dso")
    ours = answer("device", "add", folder, "--org", "dso", "--controller", "grid", "--kind", "meter", "--name", "m1")
    for verb in (("show",), ("revoke",), ("declare-exchange", "--at", "2026-03-02T01:00:00Z", "--import-final", "9")):
        told = flexrelay("device", verb[0], folder, "m1", *verb[1:])
        assert told.exit_code == 2
        assert all(text in " ".join(told.stderr.split()) for text in (theirs, ours["did"], "--org")), told.stderr
    assert answer("device", "revoke", folder, "m1", "--org", "dso")["did"] == ours["did"]
    assert answer("device", "show", folder, theirs)["status"] == "active"


def test_a_taken_name_and_a_taken_credential_change_nothing(populated: Path, copy_of: Copy) -> None:
    folder = copy_of(populated)
    answer("actor", "add", folder, "--org", "dso", "--label", "grid", "--role", "dso")
    height = answer("ledger", "show", folder)["height"]
    add = ("device", "add", folder, "--org", "dso", "--controller", "grid", "--kind", "meter", "--receiver", "agg")
    name = flexrelay(*add, "--name", "m1")
    assert name.exit_code == 2 and "as 'm1' already" in name.stderr
    bound = flexrelay(*add, "--name", "m9", "--credential", "mqtt:inverter-1")
    assert bound.exit_code == 2 and "is bound to" in bound.stderr
    assert answer("ledger", "show", folder)["height"] == height
