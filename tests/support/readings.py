"""Devices that sign readings, a registry that knows them, and an ingest path on a real journal file."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexrelay.ingest import Enrolment, Ingest, Limits, NoHistory, RegisterChecks, Registry
from flexrelay.journal import LetterBounds, SqliteJournal
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.did import split_did
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.reading import Reading, SignedReading
from flexrelay_sdk import Decoded, DecodeError, Frame
from support.contracts import NETWORK, Party, sign

NOW = 1_700_000_000_000


def signed_payload(
    party: Party, observed_at: int, registers: Mapping[str, int], seq: int, *, key_version: int | None = None
) -> bytes:
    """The canonical native payload of a reading signed with the party's current key."""
    reading = Reading(
        did=party.did,
        key_version=key_version or party.version,
        network=party.operation.network,
        observed_at=observed_at,
        registers=dict(registers),
        seq=seq,
    )
    return canonical(SignedReading(reading=reading, signature=sign(party.private, reading.message())).model_dump())


def frame_of(did: str, payload: bytes, *, protocol: str = "mqtt", received_at: int = NOW) -> Frame:
    """A frame from the device, as its transport names it: by its scid."""
    scid = split_did(did)[1]
    return Frame(protocol, scid, payload, received_at, f"flexrelay/{scid}/reading")


def registration(party: Party) -> tuple[str, dict[str, Any]]:
    """The ledger's event of a device's registration."""
    return "identity.registered", {
        "did": party.did,
        "kind": party.kind,
        "controller": party.operation.controller,
        "version": party.version,
        "key": party.operation.key,
        "org": "a",
        "v": 1,
    }


class PlainCodec:
    """Unsigned readings {"t": instant, "seq": n, <register>: value}; several in a list."""

    def decode(self, frame: Frame) -> Decoded:
        try:
            value = json.loads(frame.payload)
            items = value if isinstance(value, list) else [value]
            return Decoded(tuple(Measurement("", item.pop("t"), item, item.pop("seq", None)) for item in items))
        except (ValueError, KeyError, AttributeError) as error:
            raise DecodeError("malformed", str(error)) from None


@dataclass
class IngestPath:
    """An ingest path; `now` is the market clock, moved by tests."""

    registry: Registry
    journal: SqliteJournal
    checks: RegisterChecks
    ingest: Ingest
    now: list[int]


@asynccontextmanager
async def ingest_path(
    folder: Path,
    *parties: Party,
    unsigned: tuple[Party, ...] = (),
    limits: Limits | None = None,
    bounds: LetterBounds | None = None,
    due_until: Callable[[int], int] | None = None,
) -> AsyncIterator[IngestPath]:
    registry = Registry(NETWORK, "a")
    registry.load(registration(party) for party in (*parties, *unsigned))
    for party in unsigned:
        registry.enrol(Enrolment(party.did, unsigned=True))
    now = [NOW]
    async with SqliteJournal(folder / "journal.db", bounds) as journal:
        checks = RegisterChecks(NoHistory(), journal.traces)
        checks.prime()
        ingest = Ingest(registry, journal, checks, lambda: now[0], limits, due_until)
        try:
            yield IngestPath(registry, journal, checks, ingest, now)
        finally:
            await ingest.close()
