"""Certificates, judged by OpenSSL (Python's ssl) and not by the code that made them."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from flexrelay.network import NetworkError
from flexrelay.network.authority import Pair
from flexrelay.network.material import Material
from flexrelay_schemas.keys import multikey


def handshake(server: Pair, server_roots: Path, client: Pair, client_roots: Path, name: str) -> None:
    """A TLS handshake with certificates both ways, in memory. Raises ssl.SSLError."""
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    accepting.load_cert_chain(server.certificate, server.key)
    accepting.load_verify_locations(client_roots)
    accepting.verify_mode = ssl.CERT_REQUIRED
    dialling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    dialling.load_cert_chain(client.certificate, client.key)
    dialling.load_verify_locations(server_roots)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = dialling.wrap_bio(to_client, to_server, server_hostname=name)
    right = accepting.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        for side in (left, right):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    left.write(b"x")
    assert right.read() == b"x"


@pytest.fixture
def dso(tmp_path: Path) -> Material:
    return Material(tmp_path, "dso")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "peer0.dso"])
def test_nodes_reach_each_other_with_certificates_both_ways(dso: Material, name: str) -> None:
    server, client = dso.tls_pair("peer0.dso", "peer"), dso.tls_pair("orderer0", "orderer")
    handshake(server, dso.tls_root, client, dso.tls_root, name)


def test_another_name_and_another_organisation_are_refused(dso: Material, tmp_path: Path) -> None:
    other = Material(tmp_path, "agga")
    server, client = dso.tls_pair("peer0.dso", "peer"), other.tls_pair("peer0.agga", "peer")
    with pytest.raises(ssl.SSLError, match="Hostname mismatch"):
        handshake(server, dso.tls_root, dso.tls_pair("x", "client"), dso.tls_root, "peer1.dso")
    with pytest.raises(ssl.SSLError):
        handshake(server, dso.tls_root, client, dso.tls_root, "localhost")


def test_a_signing_root_does_not_vouch_for_tls(dso: Material) -> None:
    server = dso.tls_pair("peer0.dso", "peer")
    with pytest.raises(ssl.SSLError):
        handshake(server, dso.signing_root, server, dso.tls_root, "localhost")


def test_private_keys_are_their_owners_alone(dso: Material) -> None:
    dso.identity("peer0.dso", "peer")
    dso.tls_pair("peer0.dso", "peer")
    dso.gateway()
    keys = [path for path in dso.folder.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert len(keys) == 5  # two roots, the node's two, the gateway's
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}


def test_what_is_there_stays(dso: Material, tmp_path: Path) -> None:
    dso.identity("peer0.dso", "peer")
    before = {path: path.read_bytes() for path in dso.folder.rglob("*") if path.is_file()}
    again = Material(tmp_path, "dso")
    again.identity("peer0.dso", "peer")
    assert {path: path.read_bytes() for path in dso.folder.rglob("*") if path.is_file()} == before


def test_a_pair_without_its_certificate_is_made_anew(dso: Material) -> None:
    pair = dso.tls_pair("peer0.dso", "peer")  # the certificate is written last: a crash leaves the key alone
    pair.certificate.unlink()
    dso.tls_pair("peer0.dso", "peer")
    handshake(pair, dso.tls_root, pair, dso.tls_root, "localhost")


def test_a_draft_that_a_killed_start_left_goes(dso: Material) -> None:
    msp = dso.identity("peer0.dso", "peer")
    (msp / "signcerts" / "cert.pem").rename(msp / "signcerts" / ".cert.pem.4711.new")
    dso.identity("peer0.dso", "peer")
    assert [path.name for path in (msp / "signcerts").iterdir()] == ["cert.pem"]  # Fabric would take the first file


def test_a_certificate_that_ends_soon_is_issued_again_for_its_key(dso: Material) -> None:
    pair = Pair(dso.folder / "x" / "tls.pem", dso.folder / "x" / "tls.key")
    dso.tls.pair_for(pair, "x", "orderer", hosts=("localhost",), tls=True, days=20)
    key, first = pair.key.read_bytes(), x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    dso.tls_pair("x", "orderer")
    second = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    assert pair.key.read_bytes() == key
    assert second.public_key() == first.public_key()
    assert (second.not_valid_after_utc - first.not_valid_after_utc).days > 1000
    handshake(pair, dso.tls_root, pair, dso.tls_root, "localhost")
    dso.tls_pair("x", "orderer")
    assert x509.load_pem_x509_certificate(pair.certificate.read_bytes()) == second


def test_a_key_held_elsewhere_gets_a_client_certificate(dso: Material) -> None:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    for given in (key, multikey(key)):
        certificate = x509.load_pem_x509_certificate(dso.enrol("gateway-2", given))
        assert certificate.public_key() == key
        units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        assert [unit.value for unit in units] == ["client"]
        root = x509.load_pem_x509_certificate(dso.signing_root.read_bytes())
        certificate.verify_directly_issued_by(root)
    assert not (dso.folder / "gateways" / "gateway-2.key").exists()


def test_keys_that_fabric_does_not_take_are_refused(dso: Material) -> None:
    with pytest.raises(NetworkError, match="the key of gw: "):
        dso.enrol("gw", "zNonsense")
    with pytest.raises(NetworkError, match="not on P-256"):
        dso.enrol("gw", multikey(ed25519.Ed25519PrivateKey.generate().public_key()))
    with pytest.raises(NetworkError, match="not on P-256"):
        dso.enrol("gw", ec.generate_private_key(ec.SECP384R1()).public_key())
