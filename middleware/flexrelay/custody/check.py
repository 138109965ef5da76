"""What a custody record proves by itself: hashes, signature, Merkle paths, and that its links speak of one thing.

Whether the gateway that attests a reading was entrusted with the device stands in no record: the ledger tells
(`Custody.verify`).
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from flexrelay.custody.record import AnchorLink, CustodyRecord
from flexrelay.windows import ANCHOR, BadProof, check_proof
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.intent import SignedIntent
from flexrelay_schemas.keys import verify
from flexrelay_schemas.reading import (
    FUTURE_TOLERANCE_MS,
    AnchoredAttestation,
    Attestation,
    Attested,
    Evidence,
    Reading,
    SignedReading,
    parse_evidence,
)


@dataclass(frozen=True, slots=True)
class Check:
    """One step of the chain: whether it `holds`, and `detail` for people."""

    link: str
    holds: bool
    detail: str


def check_record(record: CustodyRecord) -> Iterator[Check]:
    """All checks that need nothing but the record."""
    frame = b64u_decode(record.frame.payload)
    yield _check("frame", hashlib.sha256(frame).hexdigest() == record.frame.sha256, "the frame's bytes give its hash")
    if record.proof is None or record.anchor is None:
        yield _check("proof", record.proof is None and record.anchor is None, "not anchored yet")
        return
    evidence = b64u_decode(record.proof.payload)
    try:
        content = content_of(evidence)
    except ValueError as error:
        yield _check("evidence", False, str(error))
        return
    if isinstance(content, Attested):
        tied = content.frame_sha256 == record.frame.sha256
        yield _check("evidence", tied, "the gateway's attestation names the frame's hash")
    else:
        yield _check("evidence", evidence == frame, "the evidence is the frame itself, signed by the device")
    said = (content.did, content.observed_at, dict(content.registers))
    reading = record.reading
    same = said == (reading.did, reading.observed_at, reading.registers)
    yield _check("reading", same, "the reading is what the evidence says")
    try:
        check_proof(record.proof, record.anchor.root, record.anchor.windows)
    except BadProof as error:
        yield _check("inclusion", False, str(error))
    else:
        yield _check("inclusion", True, "salted leaf, window and anchor give the anchored root")
    early = content.observed_at > record.anchor.market_ms + FUTURE_TOLERANCE_MS
    yield _check("observed", not early, "the reading was observed before it was anchored")
    named = (record.proof.org, record.proof.anchor_id) == (record.anchor.org, record.anchor.anchor_id)
    yield _check("anchor", named and record.proof.window.device == reading.did, "proof, anchor and window fit together")
    yield from _market_checks(record)


def content_of(data: bytes) -> Reading | Attested:
    """What evidence bytes say. Raises ValueError."""
    document = _document(data)
    return document.reading if isinstance(document, SignedReading) else document.attestation


def signer_of(content: Reading | Attested) -> tuple[str, int] | None:
    """(DID, key version) of the evidence's own signature; None where the anchor's signature is the one."""
    if isinstance(content, Attestation):
        return content.gateway, content.key_version
    return (content.did, content.key_version) if isinstance(content, Reading) else None


def check_signature(data: bytes, key: str) -> Check:
    """The evidence's own signature under the Multikey `key`."""
    try:
        document = _document(data)
        if isinstance(document, AnchoredAttestation):
            return _check("signature", False, "the evidence has no signature of its own: its anchor's is the one")
        signed = document.reading if isinstance(document, SignedReading) else document.attestation
        good = verify(key, b64u_decode(document.signature), signed.message())
    except ValueError as error:
        return _check("signature", False, str(error))
    signer = signed.gateway if isinstance(signed, Attestation) else signed.did
    return _check("signature", good, f"signed by {signer} with key version {signed.key_version}")


def check_anchor_signature(intent: SignedIntent, anchor: AnchorLink, key: str) -> Check:
    """The attesting gateway's signature: over the intent that put the anchor's root on the ledger."""
    content = intent.intent
    of_it = all(content.args.get(name) == getattr(anchor, name) for name in ("anchor_id", "root", "windows"))
    good = of_it and content.function == ANCHOR and verify(key, intent.signature_bytes(), content.message())
    return _check("signature", good, f"attested by {content.actor}, which signed the anchor's root")


def _document(data: bytes) -> Evidence:
    try:
        return parse_evidence(data)
    except ValueError as error:
        raise ValueError(f"the evidence is no signed reading: {error}") from None


def _market_checks(record: CustodyRecord) -> Iterator[Check]:
    order, settlement = record.order, record.settlement
    assert record.proof is not None
    window = record.proof.window
    if order is not None:
        isps = [item["isp"] for item in order.body.get("isps", [])]
        fits = order.body.get("date") == window.date and window.isp in isps
        yield _check("order", fits and order.body.get("order_id") == order.order_id, "the order covers the interval")
    if settlement is not None:
        owned = order is not None and settlement.settlement.startswith(f"{order.order_id}.")
        yield _check("settlement", owned and settlement.line["isp"] == window.isp, "the line is the interval's")


def _check(link: str, holds: bool, detail: str) -> Check:
    return Check(link, holds, detail)
