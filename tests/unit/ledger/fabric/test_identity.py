"""Signatures as Fabric takes them, transaction ids, and the certificate that belongs to the key."""

import hashlib
import os
import time
from pathlib import Path

import pytest
from conformance.ledger.harness import Gateway
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from support.contracts import Party
from unit.ledger.fabric.world import ECDSA, Authority, new_key, pem

from flexrelay.ledger.embedded import key_identifier
from flexrelay.ledger.fabric import AccessDenied, ProfileError
from flexrelay.ledger.fabric.identity import P256_ORDER, Identity, fabric_signature, transaction_id
from flexrelay.ledger.fabric.messages import SerializedIdentity
from flexrelay.ledger.fabric.profile import Profile

NUMBERS = st.integers(min_value=1, max_value=P256_ORDER - 1)


@given(NUMBERS, NUMBERS)
def test_signatures_are_der_with_the_smaller_s(r: int, s: int) -> None:
    found = decode_dss_signature(fabric_signature(r.to_bytes(32, "big") + s.to_bytes(32, "big")))
    assert found == (r, min(s, P256_ORDER - s))
    assert found[1] <= P256_ORDER // 2


def test_the_other_s_verifies_too() -> None:
    key = new_key()
    for _ in range(20):
        r, s = decode_dss_signature(key.sign(b"message", ECDSA))
        for either in (s, P256_ORDER - s):
            key.public_key().verify(
                fabric_signature(r.to_bytes(32, "big") + either.to_bytes(32, "big")), b"message", ECDSA
            )


@pytest.mark.parametrize("raw", [b"", bytes(64), b"\xff" * 64, b"\x01" * 63, b"\x01" * 65])
def test_what_is_no_signature_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="signature"):
        fabric_signature(raw)


def test_a_transaction_id_is_the_digest_of_nonce_and_creator() -> None:
    assert transaction_id(b"\x01\x02", b"creator") == hashlib.sha256(b"\x01\x02creator").hexdigest()


def profile_of(folder: Path, certificate: bytes, key: str = "") -> Profile:
    path = folder / "gateway.pem"
    path.write_bytes(certificate)
    return Profile.model_validate(
        {
            "channel": "grid",
            "chaincode": "flexrelay",
            "org": "dso",
            "identity": {"certificate": str(path), "key": key},
            "peers": [{"org": "dso", "endpoint": "127.0.0.1:1"}],
            "organisations": [
                {"msp": "dso", "kind": "peer", "ca": "x"},
                {"msp": "op", "kind": "orderer", "ca": "x"},
            ],
        }
    )


async def test_the_identity_is_the_one_that_contracts_see(tmp_path: Path) -> None:
    authority, signer = Authority("dso"), Gateway("dso", Party.new("gateway"))
    certificate = authority.issue("gateway", "client", signer.party.private.public_key())  # type: ignore[arg-type] # P-256
    identity = Identity(profile_of(tmp_path, pem(certificate)), signer)
    assert identity.identifier == key_identifier(signer.public_key)
    assert SerializedIdentity.FromString(identity.creator).mspid == "dso"
    signature = await identity.sign(b"message")
    certificate.public_key().verify(signature, b"message", ECDSA)  # type: ignore[union-attr, call-arg, arg-type] # P-256


async def test_a_renewed_certificate_is_taken_and_another_keys_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flexrelay.ledger.fabric.files.LOOK_EVERY_S", 0.0)
    authority, signer = Authority("dso"), Gateway("dso", Party.new("gateway"))
    public = signer.party.private.public_key()
    profile = profile_of(tmp_path, pem(authority.issue("old", "client", public)))  # type: ignore[arg-type] # P-256
    identity = Identity(profile, signer)
    before = identity.creator
    assert not identity.renew()
    replace(profile.identity.certificate, pem(authority.issue("new", "client", public)))  # type: ignore[arg-type] # P-256
    assert identity.renew()
    renewed = identity.creator
    assert renewed != before
    replace(profile.identity.certificate, pem(authority.issue("other", "client", new_key().public_key())))
    assert not identity.renew()
    assert "is not for the gateway's key" in caplog.text
    assert identity.creator == renewed


def test_an_identity_that_has_ended_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, key = Authority("dso"), new_key()
    (tmp_path / "key").write_bytes(key.private_bytes(*_PEM, serialization.NoEncryption()))
    profile = profile_of(tmp_path, pem(authority.issue("gateway", "client", key.public_key())), str(tmp_path / "key"))
    identity = Identity(profile)
    identity.check()
    later = time.time() + 400 * 86_400
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(AccessDenied, match=r"gateway\.pem expired at .* have a new one issued"):
        identity.check()


def replace(path: str, data: bytes) -> None:
    """As certificate tools do it: a new file in the old one's place."""
    Path(path + ".new").write_bytes(data)
    os.replace(path + ".new", path)  # noqa: PTH105 (atomic on every system)


def test_each_wrong_certificate_or_key_is_named(tmp_path: Path) -> None:
    authority, key = Authority("dso"), new_key()
    good = pem(authority.issue("gateway", "client", key.public_key()))
    files = {
        "good": key.private_bytes(*_PEM, serialization.NoEncryption()),
        "other": new_key().private_bytes(*_PEM, serialization.NoEncryption()),
        "locked": key.private_bytes(*_PEM, serialization.BestAvailableEncryption(b"secret")),
        "text": b"no key",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    expired = pem(authority.issue("gateway", "client", key.public_key(), days=(-30, -1)))
    early = pem(authority.issue("gateway", "client", key.public_key(), days=(1, 30)))
    cases = [
        (good, "other", "not for the gateway's key"),
        (good, "locked", "is encrypted"),
        (good, "text", "holds no private key"),
        (good, "missing", "cannot be read"),
        (good, "", "names no key file"),
        (expired, "good", "expired at"),
        (early, "good", "check the clock"),
        (b"no certificate", "good", "holds no certificate"),
    ]
    for certificate, name, message in cases:
        with pytest.raises(ProfileError, match=message):
            Identity(profile_of(tmp_path, certificate, str(tmp_path / name) if name else ""))
    Identity(profile_of(tmp_path, good, str(tmp_path / "good")))


_PEM = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
