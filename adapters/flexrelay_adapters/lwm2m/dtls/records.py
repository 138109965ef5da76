"""DTLS records as far as datagrams must be told apart (RFC 6347 §4.1): pure."""

from collections.abc import Iterator
from typing import Final

HEADER: Final = 13
CHANGE_CIPHER: Final = 20
ALERT: Final = 21
HANDSHAKE: Final = 22
DATA: Final = 23
_CLIENT_HELLO: Final = 1


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
