"""TLS both ways to a peer, and certificates that change while the connection is open."""

import hashlib
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from unit.ledger.fabric.server import BlockServer
from unit.ledger.fabric.world import Authority, new_key, pem

from flexrelay.ledger.fabric import ClientTls, Peer, ProfileError, files
from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.messages import EvaluateRequest


class Material:
    """Files of a client and a peer's TLS credentials, all from one authority."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.peer = Peer(org="dso", endpoint="127.0.0.1:1", server_name="peer0.dso", tls_ca=str(folder / "ca.pem"))
        self.client = ClientTls(certificate=str(folder / "client.pem"), key=str(folder / "client.key"))
        self.renew()

    def renew(self) -> None:
        """Everything anew: authority, client's and peer's certificates and keys."""
        authority, client, server = Authority("tls"), new_key(), new_key()
        self.write("ca.pem", pem(authority.certificate))
        certificate = authority.issue("gateway", "client", client.public_key())
        self.write("client.key", _private(client))
        self.write("client.pem", pem(certificate))
        self.client_hash = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
        pair = (_private(server), pem(authority.issue("peer0.dso", "peer", server.public_key())))
        self.credentials = grpc.ssl_server_credentials([pair], pem(authority.certificate), True)

    def write(self, name: str, data: bytes) -> None:
        (self.folder / f"{name}.new").write_bytes(data)
        (self.folder / f"{name}.new").replace(self.folder / name)

    def at(self, port: int) -> Peer:
        return self.peer.model_copy(update={"endpoint": f"127.0.0.1:{port}"})


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture
def material(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Material:
    monkeypatch.setattr("flexrelay.ledger.fabric.files.LOOK_EVERY_S", 0.0)
    return Material(tmp_path)


async def test_changed_files_are_taken_into_use(material: Material) -> None:
    server = BlockServer("dso", [])
    async with server.listening(0, material.credentials) as port:
        channel = PeerChannel(material.at(port), 0, material.client)
        assert channel.tls_hash == material.client_hash
        assert not channel.renew()
        await channel.evaluate(EvaluateRequest(), 5.0)
    material.renew()
    async with server.listening(port, material.credentials):
        await channel.evaluate(EvaluateRequest(), 5.0)
        assert channel.tls_hash == material.client_hash
    await channel.close()


async def test_without_a_certificate_the_peer_refuses(material: Material) -> None:
    async with BlockServer("dso", []).listening(0, material.credentials) as port:
        channel = PeerChannel(material.at(port), 0, None)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.evaluate(EvaluateRequest(), 5.0)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await channel.close()


async def test_files_that_do_not_fit_leave_the_open_connection_alone(
    material: Material, caplog: pytest.LogCaptureFixture
) -> None:
    server = BlockServer("dso", [])
    async with server.listening(0, material.credentials) as port:
        channel = PeerChannel(material.at(port), 0, material.client)
        before = channel.tls_hash
        await channel.evaluate(EvaluateRequest(), 5.0)
        material.write("client.key", _private(new_key()))
        assert not channel.renew()
        assert "is not for the key" in caplog.text
        assert channel.tls_hash == before
        await channel.evaluate(EvaluateRequest(), 5.0)
        await channel.close()


async def test_files_that_are_replaced_while_they_are_read(
    material: Material, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    channel = PeerChannel(material.peer, 0, material.client)
    read = files.read_key

    def then_replaced(path: str, field: str) -> ec.EllipticCurvePrivateKey:
        key = read(path, field)
        material.write("client.key", _private(new_key()))
        return key

    material.renew()
    monkeypatch.setattr(files, "read_key", then_replaced)
    assert not channel.renew()
    assert "cannot be used" in caplog.text
    await channel.close()


async def test_certificates_with_text_around_them(material: Material) -> None:
    """As `openssl x509 -text` prints them."""
    material.write("ca.pem", "Aussteller: Prüfstelle\n".encode() + (material.folder / "ca.pem").read_bytes())
    async with BlockServer("dso", []).listening(0, material.credentials) as port:
        channel = PeerChannel(material.at(port), 0, material.client)
        await channel.evaluate(EvaluateRequest(), 60.0)
        await channel.close()


async def test_each_wrong_file_is_named(material: Material) -> None:
    for name, data, message in (
        ("client.key", b"no key", r"tls\.key: .*holds no private key"),
        ("client.pem", b"nothing", r"tls\.certificate: .*holds no certificate"),
        ("ca.pem", b"nothing", r"peers\.3\.tls_ca \(127\.0\.0\.1:1\): .*holds no certificate"),
    ):
        material.write(name, data)
        with pytest.raises(ProfileError, match=message):
            PeerChannel(material.peer, 3, material.client)
        material.renew()
    without = material.peer.model_copy(update={"tls_ca": ""})
    with pytest.raises(ProfileError, match="name the peer's TLS CA"):
        PeerChannel(without, 3, material.client)
