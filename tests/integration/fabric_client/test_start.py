"""What is wrong with a network or a profile is found at start, with the remedy, within the deadline."""

import time
from pathlib import Path
from typing import Any

import pytest
from conformance.ledger.fabric import FabricHarness, FabricNetwork

from flexrelay.ledger.fabric import (
    AccessDenied,
    FabricLedger,
    NetworkMismatch,
    Profile,
    ProfileError,
    Untrusted,
    load_profile,
)
from flexrelay.ledger.port import LedgerUnavailable

pytestmark = pytest.mark.timeout(1200)

LONGEST_S = 150.0
"""Nothing hangs; a busy machine may take its time."""


async def opening(profile: Profile) -> str:
    """The message with which opening fails, and how long it took."""
    began = time.monotonic()
    with pytest.raises((NetworkMismatch, AccessDenied, LedgerUnavailable, ProfileError, Untrusted)) as caught:
        async with FabricLedger.open(profile):
            pass
    assert time.monotonic() - began < LONGEST_S
    return f"{type(caught.value).__name__}: {caught.value}"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"channel": "nowhere"}, ("NetworkMismatch", "'nowhere'", "`channel`")),
        ({"chaincode": "other"}, ("NetworkMismatch", "'other' is not committed", "`chaincode`")),
        ({"chaincode_version": "7"}, ("NetworkMismatch", "has version '1'", "`chaincode_version`")),
        ({"entries": {"a": "nothing"}}, ("NetworkMismatch", "'nothing' is not committed")),
    ],
)
async def test_a_wrong_profile(
    net: FabricNetwork, profile: Path, changes: dict[str, Any], parts: tuple[str, ...]
) -> None:
    said = await opening(load_profile(profile).model_copy(update=changes))
    for part in parts:
        assert part in said


async def test_no_peer_runs(net: FabricNetwork, profile: Path) -> None:
    good = load_profile(profile)
    nobody = good.peers[0].model_copy(update={"endpoint": "127.0.0.1:1"})
    said = await opening(good.model_copy(update={"peers": (nobody,)}))
    assert "no peer of the profile answers" in said
    assert "127.0.0.1:1" in said


async def test_a_peer_with_another_tls_authority(net: FabricNetwork, profile: Path) -> None:
    good = load_profile(profile)
    wrong = good.own_peers[0].model_copy(update={"tls_ca": good.peers[-1].tls_ca})
    assert "tls_ca" in await opening(good.model_copy(update={"peers": (wrong,)}))


async def test_a_certificate_of_another_organisation(net: FabricNetwork, profile: Path) -> None:
    """The identity says dso, its certificate was issued by agga."""
    good, other = load_profile(profile), load_profile(profile.parent / "agga.toml")
    said = await opening(good.model_copy(update={"identity": other.identity}))
    assert said.startswith("ProfileError: identity.certificate")
    assert "is not one of dso's" in said


async def test_a_key_of_another_certificate(net: FabricNetwork, profile: Path) -> None:
    good, other = load_profile(profile), load_profile(profile.parent / "agga.toml")
    mixed = good.identity.model_copy(update={"key": other.identity.key})
    assert "is not for the gateway's key" in await opening(good.model_copy(update={"identity": mixed}))


async def test_an_authority_that_did_not_sign_the_blocks(net: FabricNetwork, profile: Path) -> None:
    good = load_profile(profile)
    swapped = tuple(
        item.model_copy(update={"ca": good.organisations[0].ca}) if item.kind == "orderer" else item
        for item in good.organisations
    )
    said = await opening(good.model_copy(update={"organisations": swapped}))
    assert said.startswith("Untrusted: channel")
    assert 'kind = "orderer"' in said and "was not issued by" in said


async def test_a_chaincode_that_does_not_answer(harness: FabricHarness, net: FabricNetwork, profile: Path) -> None:
    native = harness.native
    name = next(item.name for item in native.status() if item.kind == "contract" and item.name.endswith(".dso"))
    native.stop(name)  # as one that registered under another package id: calls to it hang
    try:
        said = await opening(load_profile(profile))
    finally:
        native.cont(name)
    assert "does not answer" in said
    assert "package id" in said
