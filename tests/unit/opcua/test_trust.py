"""Which certificates are trusted, and what the refusals say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from flexrelay_adapters.opcua import OpcuaConfig, TrustList, UntrustedServer
from flexrelay_adapters.opcua.adapter import OpcuaAdapter
from flexrelay_adapters.opcua.refusals import explained
from flexrelay_adapters.opcua.trust import PENDING, self_signed, thumbprint_of

URI = "urn:plant:server"
URL = "opc.tcp://plant:4840"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@cache
def key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def certificate(valid_from: datetime = NOW - timedelta(days=1), days: int = 30, uri: str = URI) -> x509.Certificate:
    return self_signed(key("server"), uri, "plant", valid_from, days)


def der(found: x509.Certificate) -> bytes:
    return found.public_bytes(Encoding.DER)


@pytest.fixture
def trust(tmp_path: Path) -> TrustList:
    return TrustList(tmp_path / "pki", now=lambda: NOW)


def test_an_unknown_server_waits_for_approval(trust: TrustList) -> None:
    shown = certificate()
    with pytest.raises(UntrustedServer, match=r"waits for approval.*flexrelay opcua trust"):
        trust.check_server(der(shown), URI, URL)
    (known,) = trust.list()
    assert (known.state, known.application_uri, known.thumbprint) == ("pending", URI, thumbprint_of(shown))
    with pytest.raises(ValueError, match="no certificate ffff"):
        trust.trust("ffff")
    assert trust.trust(known.thumbprint[:8].upper()).state == "trusted"
    assert trust.check_server(der(shown), URI, URL) == shown
    assert trust.reject(known.thumbprint[:8]).state == "rejected"
    with pytest.raises(UntrustedServer, match="is rejected"):
        trust.check_server(der(shown), URI, URL)
    assert [each.state for each in trust.list()] == ["rejected"]


def test_a_chain_shows_the_servers_own_certificate_first(trust: TrustList) -> None:
    shown = certificate()
    trust.add(shown.public_bytes(Encoding.PEM))
    assert trust.check_server(der(shown) + der(certificate(uri="urn:ca")), URI, URL) == shown


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (certificate(NOW - timedelta(days=60)), "has expired on 2025-12-02.*renew it at the server"),
        (certificate(NOW + timedelta(days=1)), "not valid before"),
        (certificate(uri="urn:other"), "is of urn:other, the configuration expects urn:plant:server"),
    ],
)
def test_a_trusted_certificate_must_fit_all_the_same(trust: TrustList, shown: x509.Certificate, words: str) -> None:
    trust.add(der(shown))
    with pytest.raises(UntrustedServer, match=words):
        trust.check_server(der(shown), URI, URL)


def test_rubbish_is_no_certificate_and_nobody_fills_the_disk(trust: TrustList) -> None:
    for rubbish in (b"", b"x" * 100, b"x" * 100_000):
        with pytest.raises(UntrustedServer):
            trust.check_server(rubbish, URI, URL)
    with pytest.raises(ValueError, match="no certificate"):
        trust.add(b"rubbish")
    place = trust.folder / "pending"
    place.mkdir(parents=True)
    for number in range(PENDING):
        (place / f"{number}.der").write_bytes(b"")
    with pytest.raises(UntrustedServer):
        trust.check_server(der(certificate()), URI, URL)
    assert len(list(place.iterdir())) == PENDING


CA = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plant CA")])
SERVER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])


def signed(by: rsa.RSAPrivateKey, of: rsa.RSAPrivateKey, subject: x509.Name, ca: bool) -> x509.Certificate:
    uris = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(URI)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(CA)
        .public_key(of.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(uris, critical=False)
        .sign(by, hashes.SHA256())
    )


def revocations(
    by: rsa.RSAPrivateKey, *revoked: x509.Certificate, at: datetime = NOW
) -> x509.CertificateRevocationList:
    made = x509.CertificateRevocationListBuilder().issuer_name(CA).last_update(at).next_update(at + timedelta(days=1))
    for each in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(each.serial_number).revocation_date(at).build()
        made = made.add_revoked_certificate(entry)
    return made.sign(by, hashes.SHA256())


def test_an_authority_vouches_for_its_servers(trust: TrustList) -> None:
    trust.add(der(signed(key("ca"), key("ca"), CA, ca=True)))
    good = signed(key("ca"), key("server"), SERVER, ca=False)
    assert trust.check_server(der(good), URI, URL) == good
    forged = signed(key("server"), key("server"), SERVER, ca=False)
    with pytest.raises(UntrustedServer, match="waits for approval"):
        trust.check_server(der(forged), URI, URL)


def test_an_authority_takes_it_back(trust: TrustList) -> None:
    authority = signed(key("ca"), key("ca"), CA, ca=True)
    stolen, good = (signed(key("ca"), key("server"), SERVER, ca=False) for _ in range(2))
    listed = revocations(key("ca"), stolen)
    with pytest.raises(ValueError, match=r"plant CA, which is no trusted authority here: add its certificate first"):
        trust.add(listed.public_bytes(Encoding.DER))
    trust.add(der(authority))
    trust.add(der(stolen))  # even one that somebody has chosen by hand
    assert trust.check_server(der(stolen), URI, URL) == stolen
    with pytest.raises(ValueError, match="no trusted authority"):
        trust.add(revocations(key("server"), good).public_bytes(Encoding.PEM))  # signed by another
    assert trust.add(listed.public_bytes(Encoding.PEM)).thumbprint == thumbprint_of(authority)
    for _ in range(2):
        with pytest.raises(UntrustedServer, match="is revoked by its authority"):
            trust.check_server(der(stolen), URI, URL)
        assert trust.check_server(der(good), URI, URL) == good
        with pytest.raises(ValueError, match="a newer revocation list"):
            trust.add(revocations(key("ca"), at=NOW - timedelta(hours=1)).public_bytes(Encoding.DER))
    (path,) = (trust.folder / "revocations").iterdir()
    path.write_bytes(b"torn")
    with pytest.raises(UntrustedServer, match="no revocation list of its authority"):
        trust.check_server(der(good), URI, URL)


def test_our_own_certificate(trust: TrustList, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no .*certificate\.der: `flexrelay opcua certificate` makes it"):
        trust.check_own("urn:gateway")
    own = trust.make_own("urn:gateway", "host")
    assert own.key.stat().st_mode & 0o777 == 0o600
    trust.check_own("urn:gateway")
    with pytest.raises(ValueError, match="is of urn:gateway, not of application_uri urn:other"):
        trust.check_own("urn:other")
    late = TrustList(trust.folder, now=lambda: NOW + timedelta(days=6 * 365))
    with pytest.raises(ValueError, match="has expired"):
        late.check_own("urn:gateway")
    section = {
        "url": URL,
        "server": URI,
        "application_uri": "urn:other",
        "pki": trust.folder,
        "devices": {"m": {"registers": {"power_w": {"node": "i=5", "unit": "W"}}}},
    }
    with pytest.raises(ValueError, match=r"^pki: "):
        OpcuaAdapter(OpcuaConfig.from_section("t", section)).validate()


class Refused(Exception):
    code = 0x8021_0000
    name = "BadIdentityTokenRejected"


def test_refusals_name_the_remedy() -> None:
    section = {
        "url": URL,
        "security": "None",
        "devices": {"m": {"registers": {"power_w": {"node": "i=5", "unit": "W"}}}},
    }
    config = OpcuaConfig.from_section("t", section)
    found = explained(Refused(), config)
    assert found.status == Refused.code and "set `username`" in str(found)
    assert "is the server up" in str(explained(ConnectionRefusedError("x"), config))
    assert explained(found, config) is found
