"""Multikeys and signatures of both algorithms, and texts of bytes."""

from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_schemas.encoding import b64u, b64u_decode, multibase, multibase_decode
from flexrelay_schemas.keys import multikey, public_key, verify

MESSAGE = b"flexrelay-reading-v1{}"


@cache
def _ed25519() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@cache
def _p256() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(0x1234567890ABCDEF, ec.SECP256R1())


def _sign(algorithm: str, message: bytes) -> tuple[str, bytes]:
    if algorithm == "ed25519":
        return multikey(_ed25519().public_key()), _ed25519().sign(message)
    r, s = decode_dss_signature(_p256().sign(message, ec.ECDSA(hashes.SHA256())))
    return multikey(_p256().public_key()), r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_fixed_multikeys() -> None:
    """The prefixes are those of did:key's examples: z6Mk for Ed25519, zDn for P-256."""
    assert multikey(_ed25519().public_key()) == "z6MkehRgf7yJbgaGfYsdoAsKdBPE3dj2CYhowQdcjqSJgvVd"
    assert multikey(_p256().public_key()).startswith("zDn")


def test_public_test_vector_of_did_key() -> None:
    """did:key specification, Ed25519 example: the Multikey is that of this raw key."""
    raw = multibase_decode("z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp")
    assert raw[:2] == b"\xed\x01"
    assert multikey(public_key("z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp")) == multibase(raw)


@pytest.mark.parametrize("algorithm", ["ed25519", "p256"])
@given(message=st.binary(max_size=200), flip=st.integers(0, 511))
def test_a_signature_holds_and_no_bit_of_it_may_change(algorithm: str, message: bytes, flip: int) -> None:
    key, signature = _sign(algorithm, message)
    assert verify(key, signature, message)
    assert not verify(key, signature, message + b"\x00")
    broken = bytearray(signature)
    broken[flip // 8] ^= 1 << flip % 8
    assert not verify(key, bytes(broken), message)


@pytest.mark.parametrize("algorithm", ["ed25519", "p256"])
@pytest.mark.parametrize("length", [0, 1, 63, 65, 70, 128])
def test_signatures_of_other_lengths_do_not_hold(algorithm: str, length: int) -> None:
    key, signature = _sign(algorithm, MESSAGE)
    assert not verify(key, (signature * 2)[:length], MESSAGE)


def test_leading_zeros_do_not_make_another_signature() -> None:
    """r ‖ 00 ‖ s is the same pair of numbers; only its length tells."""
    key, signature = _sign("p256", MESSAGE)
    assert not verify(key, signature[:32] + b"\x00" + signature[32:], MESSAGE)


@pytest.mark.parametrize("algorithm", ["ed25519", "p256"])
@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, bytes(32) + b"\x01" * 32, b"\x01" * 32 + bytes(32)])
def test_extreme_signatures_do_not_hold(algorithm: str, signature: bytes) -> None:
    key, _ = _sign(algorithm, MESSAGE)
    assert not verify(key, signature, MESSAGE)


def test_a_der_signature_is_not_ours() -> None:
    der = _p256().sign(MESSAGE, ec.ECDSA(hashes.SHA256()))
    assert not verify(multikey(_p256().public_key()), der, MESSAGE)


def test_a_signature_of_the_other_algorithm_does_not_hold() -> None:
    ed_key, ed_signature = _sign("ed25519", MESSAGE)
    p_key, p_signature = _sign("p256", MESSAGE)
    assert not verify(ed_key, p_signature, MESSAGE)
    assert not verify(p_key, ed_signature, MESSAGE)


def _bad_keys() -> list[Any]:
    raw = multibase_decode(multikey(_ed25519().public_key()))
    point = multibase_decode(multikey(_p256().public_key()))
    return [
        "",
        "z",
        "x" + multibase(raw)[1:],
        multibase(raw) + "\n",
        multibase(raw) + " ",
        multibase(raw)[:-1] + "0",
        multibase(raw)[:-1] + "é",
        multibase(raw[:-1]),
        multibase(raw + b"\x00"),
        multibase(b"\xec\x01" + raw[2:]),
        multibase(point[:2] + b"\x04" + point[3:]),
        multibase(point[:2] + b"\x02" + b"\xff" * 32),
        multibase(point[:-1]),
        "z" + "1" * 1000,
    ]


@pytest.mark.parametrize("text", _bad_keys())
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        public_key(text)
    with pytest.raises(ValueError, match=r"."):
        verify(text, bytes(64), MESSAGE)


def test_other_curves_have_no_multikey_here() -> None:
    with pytest.raises(ValueError, match="secp384r1 is not supported"):
        multikey(ec.derive_private_key(5, ec.SECP384R1()).public_key())


@given(st.binary(max_size=100))
def test_texts_of_bytes_come_back(data: bytes) -> None:
    assert b64u_decode(b64u(data)) == data
    assert multibase_decode(multibase(data)) == data


@given(st.text(st.sampled_from("AQgwBz09-_+/= \n"), max_size=9))
def test_bytes_have_one_text(text: str) -> None:
    """Whatever is accepted is what would have been written: a signature cannot be given another text."""
    for decode, encode in ((b64u_decode, b64u), (multibase_decode, multibase)):
        try:
            data = decode(text)
        except ValueError:
            continue
        assert encode(data) == text


@pytest.mark.parametrize("text", ["AA==", "AB", "A", "+/+/", "AAA\n", " AAA", "AÄA", "A=A="])
def test_what_is_not_base64url(text: str) -> None:
    with pytest.raises(ValueError, match="not base64url"):
        b64u_decode(text)
