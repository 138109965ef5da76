"""Certificates that are expired, of nobody known, or of another key: told by file and remedy, before or at start."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from integration.fabric_edges.consortium import Consortium, written
from support.chain import Signer

from flexrelay.ledger.fabric import AccessDenied, ClientTls, FabricLedger, IdentityFiles, Profile, ProfileError
from flexrelay.ledger.port import Call, LedgerError, LedgerUnavailable
from flexrelay.network.authority import Authority, Pair

pytestmark = pytest.mark.timeout(1200)

LONGEST_S = 150.0
SECOND = 1 / 86_400
"""Of a day: how long the authority lets a certificate live."""


async def opening(consortium: Consortium, profile: Profile) -> LedgerError:
    """What it fails with, in time."""
    began = time.monotonic()
    with pytest.raises(LedgerError) as caught:
        async with FabricLedger.open(profile, Signer(consortium.gateways["dso"])):
            pass
    assert time.monotonic() - began < LONGEST_S
    return caught.value


def with_certificate(consortium: Consortium, path: Path, certificate: bytes) -> Profile:
    path.write_bytes(certificate)
    return consortium.profile("dso").model_copy(update={"identity": IdentityFiles(certificate=str(path))})


async def test_an_expired_identity(consortium: Consortium, tmp_path: Path) -> None:
    key = consortium.gateways["dso"].private.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    path = tmp_path / "gateway.pem"
    old = consortium.native.materials["dso"].signing.issue("edges", key, "client", days=0)
    error = await opening(consortium, with_certificate(consortium, path, old))
    assert isinstance(error, ProfileError)
    assert f"identity.certificate: the certificate in {path} expired at" in str(error)
    assert "have a new one issued" in str(error)


async def test_an_identity_of_an_unknown_authority(consortium: Consortium, tmp_path: Path) -> None:
    """It has the organisation's name and the gateway's key; nobody there has issued it."""
    key = consortium.gateways["dso"].private.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    forged = Authority(tmp_path / "ca", "dso", "sign").issue("edges", key, "client")
    error = await opening(consortium, with_certificate(consortium, tmp_path / "gateway.pem", forged))
    assert isinstance(error, ProfileError)
    assert f"identity.certificate: {tmp_path / 'gateway.pem'} is not one of dso's" in str(error)


async def test_an_identity_of_another_key(consortium: Consortium, tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    path = tmp_path / "gateway.pem"
    issued = consortium.native.materials["dso"].signing.issue("edges", other, "client")
    error = await opening(consortium, with_certificate(consortium, path, issued))
    assert isinstance(error, ProfileError)
    assert f"the certificate in {path} is not for the gateway's key" in str(error)


async def test_an_identity_that_expires_while_it_runs(consortium: Consortium, tmp_path: Path) -> None:
    """The peers deny it with a reason that says so; a new certificate in the file is taken without a restart."""
    key = consortium.gateways["dso"].private.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    issue = consortium.native.materials["dso"].signing.issue
    path = tmp_path / "gateway.pem"
    intent = consortium.intent(consortium.operator, "slow.wait", ms=0)
    async with AsyncExitStack() as stack:
        for life_s in (6, 30, 120):  # a busy machine may take longer than the first to connect
            short = issue("edges", key, "client", days=life_s * SECOND)  # type: ignore[arg-type] # a part of a day
            profile = with_certificate(consortium, path, short)
            with suppress(LedgerError):
                ledger = await stack.enter_async_context(consortium.connect("dso", profile))
                break
        async with asyncio.timeout(LONGEST_S):
            while True:
                try:
                    await ledger.evaluate("network.show", {})
                except AccessDenied as error:
                    denied = error
                    break
                except LedgerUnavailable:  # a busy machine
                    pass
                await asyncio.sleep(0.5)
            with pytest.raises(AccessDenied, match="expired"):
                await ledger.prepare(Call(intent))
        assert "expired" in str(denied)
        path.write_bytes(issue("edges", key, "client"))
        await written(ledger, intent)


@contextmanager
def listening(pair: Pair) -> Iterator[str]:
    """Something that shows this TLS certificate to whoever dials; its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_alpn_protocols(["h2"])
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = server.accept()
                plain.settimeout(60)
                with context.wrap_socket(plain, server_side=True) as secure:
                    secure.recv(1)
            except (ssl.SSLError, TimeoutError, ConnectionError):
                continue
            except OSError:
                return

    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


@pytest.mark.parametrize(
    ("days", "host", "reason"),
    [(0, "peer0.dso", "expired"), (100, "peer1.dso", "peer0.dso"), (None, "peer0.dso", "CERTIFICATE_VERIFY_FAILED")],
)
async def test_a_peer_with_a_bad_tls_certificate(
    consortium: Consortium, tmp_path: Path, days: int | None, host: str, reason: str
) -> None:
    """Expired, for another name, of an unknown authority."""
    known = consortium.native.materials["dso"].tls
    authority = known if days is not None else Authority(tmp_path / "ca", "dso", "tls")
    pair = Pair(tmp_path / "peer.pem", tmp_path / "peer.key")
    authority.pair_for(pair, host, "peer", hosts=[host], tls=True, days=100 if days is None else days)
    good = consortium.profile("dso")
    with listening(pair) as address:
        peer = good.own_peers[0].model_copy(update={"endpoint": address})
        error = await opening(consortium, good.model_copy(update={"peers": (peer,)}))
    assert isinstance(error, ProfileError)  # waiting for such a peer would not help
    said = str(error)
    assert address in said and "tls_ca" in said and "server_name" in said, said
    assert reason in said, said


@pytest.mark.parametrize("which", ["expired", "mismatched"])
async def test_client_tls_files(consortium: Consortium, tmp_path: Path, which: str) -> None:
    tls = consortium.native.materials["dso"].tls
    pair, other = Pair(tmp_path / "a.pem", tmp_path / "a.key"), Pair(tmp_path / "b.pem", tmp_path / "b.key")
    tls.pair_for(pair, "gateway", "client", tls=True, days=0 if which == "expired" else 100)
    tls.pair_for(other, "gateway", "client", tls=True)
    shown = ClientTls(certificate=str(pair.certificate), key=str((pair if which == "expired" else other).key))
    error = await opening(consortium, consortium.profile("dso").model_copy(update={"tls": shown}))
    assert isinstance(error, ProfileError)
    assert f"{pair.certificate}" in str(error) and "tls" in str(error)
    assert ("expired at" if which == "expired" else "is not for the key in") in str(error)
