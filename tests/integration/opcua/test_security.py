"""Security against node-opcua: the three policies, users and certificates, trust, and refusals that say what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.opcua_rig import APPLICATION, certificate_pair, secured, server_options, shared
from support.opcua_server import NAMESPACE, NodeServer, node_server

from flexrelay_adapters.opcua import OpcuaAdapter, OpcuaConfig, TrustList
from flexrelay_sdk.testkit import RecordingSink, running, until

pytestmark = pytest.mark.timeout(600)
PATIENCE_S = 90.0


def adapter(section: dict[str, Any]) -> OpcuaAdapter:
    return OpcuaAdapter(OpcuaConfig.from_section("plant", section))


async def reads(server: NodeServer, section: dict[str, Any], number: int) -> None:
    sink = RecordingSink()
    async with running(adapter(section), sink, connect_s=PATIENCE_S):
        await server.set("meter.power", number)
        await until(lambda: number in sink.values(), PATIENCE_S, "the reading")


@asynccontextmanager
async def trouble(section: dict[str, Any], words: str) -> AsyncIterator[OpcuaAdapter]:
    """It does not connect and says why; after the block it does."""
    made, sink = adapter(section), RecordingSink()
    async with running(made, sink, connected=False):
        await until(lambda: words in made.trouble, PATIENCE_S, f"{words!r}")
        assert not made.connected and sink.entered == 0 and words in made.endpoint
        yield made


@pytest.mark.parametrize("policy", ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"])
async def test_policies_with_a_user(tmp_path: Path, policy: str) -> None:
    async with node_server(tmp_path / "server", **server_options(policy)) as server:
        await reads(server, secured(server, tmp_path, policy), 7)


async def test_trust_users_and_what_does_not_fit(tmp_path: Path) -> None:
    """One server, one after the other: an unknown certificate waits and is trusted while the adapter runs; the wrong
    policy, application URI and password; a user with a certificate."""
    async with node_server(tmp_path / "server", **server_options()) as server:
        section = secured(server, tmp_path)
        trust = TrustList(tmp_path / "pki-gateway")
        (known,) = trust.list()
        (trust.folder / "trusted" / f"{known.thumbprint}.der").unlink()
        async with trouble(section, "waits for approval") as made:
            assert [each.state for each in trust.list()] == ["pending"]
            trust.trust(known.thumbprint[:12])
            await until(lambda: made.connected, PATIENCE_S, "the connection after the approval")
            assert made.trouble == ""
            trust.reject(known.thumbprint[:12])
            await server.tell("cut")
            await until(lambda: "is rejected" in made.trouble, PATIENCE_S, "the rejection")
        trust.trust(known.thumbprint[:12])
        async with trouble(secured(server, tmp_path, "Aes128_Sha256_RsaOaep"), "offers no Aes128_Sha256_RsaOaep"):
            pass
        async with trouble(
            {**section, "server": "urn:other"}, f"is of {NAMESPACE}, the configuration expects urn:other"
        ):
            pass
        async with trouble({**section, "password": "wrong"}, "check `username`, the password"):
            pass
        own = tmp_path / "pki-gateway" / "own"
        user = {"user_certificate": str(own / "certificate.der"), "user_key": str(own / "key.pem")}
        await reads(server, {**section, "username": None, "password": None, **user}, 9)


async def test_an_expired_certificate(tmp_path: Path) -> None:
    pem, key, _ = certificate_pair(tmp_path / "old", NAMESPACE, datetime.now(UTC) - timedelta(days=30), days=20)
    async with node_server(tmp_path / "server", **server_options(certificate=str(pem), key=str(key))) as server:
        section = secured(server, tmp_path)
        TrustList(tmp_path / "pki-gateway").add(pem.read_bytes())
        async with trouble(section, "has expired on"):
            pass


async def test_a_server_that_does_not_trust_us(tmp_path: Path) -> None:
    strangers = TrustList(tmp_path / "strangers")
    strangers.make_own(APPLICATION, "stranger")
    strangers.add((shared() / "server" / "certificate.pem").read_bytes())
    async with (
        node_server(tmp_path / "server", **server_options()) as server,
        trouble({**secured(server, tmp_path), "pki": str(strangers.folder)}, "does not trust our certificate: give it"),
    ):
        pass


async def test_a_server_that_changes_its_certificate(tmp_path: Path) -> None:
    """In mid-session it comes back with another key, as after a theft of its address: nothing is taken until somebody
    has approved it; then the readings of the time between come from its history."""
    async with node_server(tmp_path / "server", **server_options()) as server:
        made, sink = adapter(secured(server, tmp_path, keys=("power",))), RecordingSink()
        trust = TrustList(tmp_path / "pki-gateway")
        async with running(made, sink, connect_s=PATIENCE_S):
            await server.set("meter.power", 1)
            await until(lambda: sink.values() == [1], PATIENCE_S, "the first reading")
            pem, key, _ = certificate_pair(tmp_path / "new", NAMESPACE)
            await server.stop()
            server.options |= {"certificate": str(pem), "key": str(key)}
            await server.start()
            await server.set("meter.power", 2)
            await until(lambda: "waits for approval" in made.trouble, PATIENCE_S, "the refusal")
            assert not made.connected and sink.values() == [1]
            (waiting,) = [each for each in trust.list() if each.state == "pending"]
            trust.trust(waiting.thumbprint)
            await until(lambda: made.connected, PATIENCE_S, "the connection after the approval")
            await server.set("meter.power", 3)
            await until(lambda: 3 in sink.values(), PATIENCE_S, "the next reading")
            assert sink.values() == [1, 2, 3] and sink.dead == []


async def test_a_server_without_a_session_left(tmp_path: Path) -> None:
    """As after many crashes of a gateway: their sessions stay until they time out."""
    async with node_server(tmp_path / "server", **server_options(), maxSessions=1) as server:
        one = secured(server, tmp_path, keys=("power",), state=str(tmp_path / "one"))
        two = {**one, "state": str(tmp_path / "two")}
        async with (
            running(adapter(one), RecordingSink(), connect_s=PATIENCE_S),
            trouble(two, "BadTooManySessions") as made,
        ):
            assert "end others, or raise its limit" in made.trouble
