"""Whether a stored entry still is what the device sent: everything is recomputed from the exact bytes."""

import hashlib
from collections.abc import Sequence

from flexrelay.ingest.native import decode_signed
from flexrelay.ingest.registry import partition_of
from flexrelay.journal.port import Entry
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.keys import verify
from flexrelay_schemas.reading import SignedAttestation, SignedReading, parse_evidence
from flexrelay_sdk import DecodeError


class EntryInvalid(Exception):
    """The entry is not what was received; the message says what does not fit."""


def verify_entry(entry: Entry, key: str, attestations: Sequence[bytes] = ()) -> None:
    """Check an entry against the Multikey `key` that counted when it was received.

    A signed entry: the device's key; the payload's signature holds and gives exactly the stored measurement. An
    unsigned one: one attestation a measurement, in order, and the gateway's key where they have signatures of their
    own. Raises EntryInvalid. The texts beside
    the reading (protocol, credential, channel, receive time) are covered by the journal's own hash chain.
    """
    if entry.partition != partition_of(entry.did):
        raise EntryInvalid(f"entry {entry.position}: partition {entry.partition} is not that of {entry.did}")
    if entry.signed:
        _verify_signed(entry, key)
    else:
        _verify_attested(entry, key, attestations)


def _verify_signed(entry: Entry, key: str) -> None:
    try:
        decoded = decode_signed(entry.payload, len(entry.payload))
    except DecodeError as error:
        raise EntryInvalid(f"entry {entry.position}: the payload is no signed reading: {error}") from None
    proof = decoded.proof
    if proof is None or not verify(key, proof.signature, proof.message):
        raise EntryInvalid(f"entry {entry.position}: the signature does not hold")
    contents = [(m.did, m.observed_at, m.registers, m.seq, m.provenance) for m in decoded.measurements]
    stored = [(m.did, m.observed_at, m.registers, m.seq, m.provenance) for m in entry.measurements]
    if proof.did != entry.did or contents != stored:
        raise EntryInvalid(f"entry {entry.position}: the stored measurement is not the payload's")


def _verify_attested(entry: Entry, key: str, attestations: Sequence[bytes]) -> None:
    if len(attestations) != len(entry.measurements):
        raise EntryInvalid(
            f"entry {entry.position}: {len(attestations)} attestations for {len(entry.measurements)} measurements"
        )
    digest = hashlib.sha256(entry.payload).hexdigest()
    for data, measurement in zip(attestations, entry.measurements, strict=True):
        try:
            document = parse_evidence(data)
            if isinstance(document, SignedReading):
                raise ValueError("a signed reading")
            good = not isinstance(document, SignedAttestation) or verify(
                key, b64u_decode(document.signature), document.attestation.message()
            )
        except ValueError as error:
            raise EntryInvalid(f"entry {entry.position}: not an attestation: {error}") from None
        if not good:
            raise EntryInvalid(f"entry {entry.position}: the gateway's signature does not hold")
        content = document.attestation
        attested = (content.did, content.observed_at, content.registers, content.frame_sha256)
        if attested != (entry.did, measurement.observed_at, measurement.registers, digest):
            raise EntryInvalid(f"entry {entry.position}: the attestation is not of this frame")
