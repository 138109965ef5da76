"""Message types, codes, option numbers and content formats: the numbers of RFC 7252 §12, 7641, 7959, 8132 and OMA's."""

from typing import Final

CON: Final = 0
NON: Final = 1
ACK: Final = 2
RST: Final = 3

EMPTY: Final = 0
GET: Final = 1
POST: Final = 2
PUT: Final = 3
DELETE: Final = 4
FETCH: Final = 5
IPATCH: Final = 7

CREATED: Final = 0x41
DELETED: Final = 0x42
VALID: Final = 0x43
CHANGED: Final = 0x44
CONTENT: Final = 0x45
CONTINUE: Final = 0x5F
BAD_REQUEST: Final = 0x80
UNAUTHORIZED: Final = 0x81
BAD_OPTION: Final = 0x82
FORBIDDEN: Final = 0x83
NOT_FOUND: Final = 0x84
METHOD_NOT_ALLOWED: Final = 0x85
NOT_ACCEPTABLE: Final = 0x86
ENTITY_INCOMPLETE: Final = 0x88
PRECONDITION_FAILED: Final = 0x8C
TOO_LARGE: Final = 0x8D
UNSUPPORTED_FORMAT: Final = 0x8F
INTERNAL_ERROR: Final = 0xA0
UNAVAILABLE: Final = 0xA3

OBSERVE: Final = 6
LOCATION_PATH: Final = 8
URI_PATH: Final = 11
CONTENT_FORMAT: Final = 12
MAX_AGE: Final = 14
URI_QUERY: Final = 15
ACCEPT: Final = 17
BLOCK2: Final = 23
BLOCK1: Final = 27

UNDERSTOOD: Final = frozenset({1, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 17, 20, 23, 27, 28, 60})
"""Options that are taken or may be passed over; any other critical one (odd number) refuses the message (§5.4.1)."""

TEXT: Final = 0
LINK: Final = 40
OPAQUE: Final = 42
SENML_JSON: Final = 110
SENML_CBOR: Final = 112
TLV: Final = 11542
LWM2M_CBOR: Final = 11544


def code_text(code: int) -> str:
    """As people write it: 0x44 is "2.04"."""
    return f"{code >> 5}.{code & 31:02d}"
