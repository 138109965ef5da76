"""DTLS records as far as datagrams must be told apart (RFC 6347 §4.1): pure."""

from collections.abc import Iterator
from typing import Final, NamedTuple

HEADER: Final = 13
CHANGE_CIPHER: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
DATA: Final = 23
_CLIENT_HELLO: Final = 1
_CERTIFICATE_TYPES: Final = (19, 20)
"""Extensions of RFC 7250: the client's and the server's certificate type."""
_X509: Final = 0
_CONNECTION_ID: Final = (53, 54)
"""The extension of RFC 9146, and its number before it was one."""
REFUSAL: Final = bytes.fromhex("15 fefd 0000 000000000000 0002 02 28")
"""A fatal alert, handshake_failure, unencrypted: for who says hello where there is no DTLS."""


def split(data: bytes) -> Iterator[bytes]:
    """The records of what OpenSSL has written, one datagram each: a memory buffer does not keep them apart."""
    at = 0
    while at + HEADER <= len(data):
        end = at + HEADER + (data[at + 11] << 8 | data[at + 12])
        yield data[at:end]
        at = end


def is_client_hello(data: bytes) -> bool:
    """Whether a datagram is exactly one unencrypted record with the beginning of one ClientHello, all of it.

    Anything else must not get to the listening connection: what is left over in its buffer would meet the next peer.
    """
    return (
        HEADER + 12 < len(data) <= 2048
        and data[0] == HANDSHAKE
        and data[1] == 0xFE
        and data[3:5] == b"\0\0"
        and (data[11] << 8 | data[12]) == len(data) - HEADER
        and data[13] == _CLIENT_HELLO
        and data[14:17] == data[22:25]  # the message is not fragmented
        and int.from_bytes(data[14:17], "big") == len(data) - HEADER - 12
    )


class Offer(NamedTuple):
    """What a ClientHello says besides ciphers. `raw_keys`: a certificate type other than X.509 is all that it takes or
    has; `connection_id`: it would use connection identifiers."""

    raw_keys: bool = False
    connection_id: bool = False


def offer_of(hello: bytes) -> Offer:
    """Of a datagram of which `is_client_hello` is true; what is malformed offers nothing (OpenSSL refuses it)."""
    try:
        at = HEADER + 12 + 2 + 32
        at += 1 + hello[at]  # session
        at += 1 + hello[at]  # cookie
        at += 2 + int.from_bytes(hello[at : at + 2], "big")  # ciphers
        at += 1 + hello[at]  # compression
    except IndexError:
        return Offer()
    raw_keys = connection_id = False
    at += 2
    while at + 4 <= len(hello):
        kind, length = int.from_bytes(hello[at : at + 2], "big"), int.from_bytes(hello[at + 2 : at + 4], "big")
        body = hello[at + 4 : at + 4 + length]
        if kind in _CERTIFICATE_TYPES and len(body) > 1 and _X509 not in body[1:]:
            raw_keys = True
        elif kind in _CONNECTION_ID:
            connection_id = True
        at += 4 + length
    return Offer(raw_keys, connection_id)
