"""What a ClientHello offers, as far as it decides what people are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexrelay_adapters.lwm2m.dtls.records import REFUSAL, Offer, is_client_hello, offer_of, split


def hello(*extensions: tuple[int, bytes], cookie: bytes = b"\x05" * 20, session: bytes = b"") -> bytes:
    ciphers = bytes.fromhex("c0aec0a800ff")
    body = bytes.fromhex("fefd") + bytes(32)
    body += bytes([len(session)]) + session + bytes([len(cookie)]) + cookie
    body += len(ciphers).to_bytes(2, "big") + ciphers + b"\x01\x00"
    told = b"".join(kind.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data for kind, data in extensions)
    body += len(told).to_bytes(2, "big") + told
    length = len(body).to_bytes(3, "big")
    message = b"\x01" + length + bytes(2) + bytes(3) + length + body
    return bytes.fromhex("16feff0000000000000000") + len(message).to_bytes(2, "big") + message


CURVES = (10, bytes.fromhex("00020017"))


@pytest.mark.parametrize(
    ("extensions", "offer"),
    [
        ((), Offer()),
        ((CURVES,), Offer()),
        ((CURVES, (19, b"\x01\x02"), (20, b"\x01\x02")), Offer(raw_keys=True)),
        (((20, b"\x02\x02\x00"),), Offer()),
        (((19, b"\x01\x02"), (20, b"\x02\x02\x00")), Offer(raw_keys=True)),
        (((54, b"\x00"),), Offer(connection_id=True)),
        ((CURVES, (53, b"\x06abcdef"), (19, b"\x01\x02")), Offer(True, True)),
        (((19, b""), (20, b"\x00")), Offer()),
    ],
)
def test_what_is_offered(extensions: tuple[tuple[int, bytes], ...], offer: Offer) -> None:
    data = hello(*extensions)
    assert is_client_hello(data) and offer_of(data) == offer
    assert offer_of(hello(*extensions, cookie=b"", session=bytes(32))) == offer


@given(st.binary(max_size=200), st.integers(0, 120))
def test_whatever_the_bytes_are(data: bytes, cut: int) -> None:
    assert isinstance(offer_of(data), Offer)
    assert isinstance(offer_of(hello(CURVES, (19, b"\x01\x02"))[:cut] + data), Offer)


def test_the_refusal_is_one_record() -> None:
    assert list(split(REFUSAL)) == [REFUSAL] and len(REFUSAL) == 15
