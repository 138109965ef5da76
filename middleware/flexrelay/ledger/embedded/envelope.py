"""Envelopes: what a gateway stores and submits. `FXE1` ‖ signature (64) ‖ attestation (32) ‖ body (JSON).

The body holds the proposal and what its execution read and wrote. The attestation is the operator's MAC over the
body: no gateway can change what was executed. The signature is the creator's, over all that follows it.

Body: v, network, tx_id, nonce (hex), creator [org, Multikey], timestamp (UTC ms), function, intent (base64), transient
[names], result (canonical JSON as text), orgs [[org, how it endorsed]], reads [[key, block, tx] or [key] when absent],
ranges [[start, end, count, SHA-256 of keys and versions]], private_reads [[collection, key hash, block, tx]], writes
[[key, base64 or null]], policies [[key, [term]]] (see `policy_terms`), private [[collection, key hash, value hash or
null]], events [[name, base64]]. Writes and reads are sorted by key.
"""

import binascii
import hashlib
from typing import Any, NamedTuple

import orjson

from flexrelay.ledger.port import Rejected
from flexrelay_schemas.keys import verify

MAGIC = b"FXE1"
_SIGNED = b"flexrelay-envelope-v1"
_MIN = len(MAGIC) + 64 + 32 + 2

EXECUTED = "executed"
ATTESTED = "attested by the operator"

Body = dict[str, Any]

unb64 = binascii.a2b_base64


def b64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


class Envelope(NamedTuple):
    """An envelope taken apart; nothing is checked yet but its outer form."""

    data: bytes
    signature: bytes
    attestation: bytes
    body: bytes

    def signed_by_creator(self, body: Body) -> bool:
        """Whether the signature is the one of the creator that the body names. Raises ValueError for a bad key."""
        return verify(body["creator"][1], self.signature, signing_message(self.attestation, self.body))


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def encode_body(body: Body) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_STRICT_INTEGER)


def decode_body(data: bytes) -> Body:
    body: Body = orjson.loads(data)
    return body


def attest(secret: bytes, body: bytes) -> bytes:
    """The operator's keyed BLAKE2b-256 over the body: "this is what the execution gave"."""
    return hashlib.blake2b(body, digest_size=32, key=secret).digest()


def signing_message(attestation: bytes, body: bytes) -> bytes:
    """What the creator signs (a digest, so that a hardware key need not see megabytes)."""
    return _SIGNED + attestation + hashlib.sha256(body).digest()


def join(signature: bytes, attestation: bytes, body: bytes) -> bytes:
    return MAGIC + signature + attestation + body


def split(data: bytes) -> Envelope:
    """Take an envelope apart. Raises Rejected when it is none."""
    if len(data) < _MIN or data[:4] != MAGIC:
        raise Rejected("this is no envelope of the embedded ledger (FXE1)")
    return Envelope(data, data[4:68], data[68:100], data[100:])
