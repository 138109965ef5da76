"""Any changed byte of a stored reading makes its verification fail; refused frames come in once their cause is gone."""

import hashlib
from pathlib import Path

import pytest
from support.contracts import Party, sign
from support.readings import NOW, PlainCodec, frame_of, ingest_path, registration, signed_payload

from flexrelay.ingest import EntryInvalid, NativeCodec, redrive, verify_entry
from flexrelay.journal import Entry, LetterBounds
from flexrelay.windows.attest import attested
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.reading import Attestation, SignedAttestation

T = NOW - 1000


async def stored(folder: Path, meter: Party) -> Entry:
    async with ingest_path(folder, meter) as path:
        payload = signed_payload(meter, T, {"import_j": 5, "power_w": -3}, 1)
        await path.ingest.put([frame_of(meter.did, payload)], NativeCodec())
        entry = await path.journal.entry(1)
        assert entry is not None
        return entry


@pytest.mark.parametrize("p256", [True, False])
async def test_every_flipped_byte_of_a_signed_payload_is_found(tmp_path: Path, p256: bool) -> None:
    meter = Party.new("device", p256=p256)
    entry = await stored(tmp_path, meter)
    key = meter.operation.key
    verify_entry(entry, key)
    payload = entry.payload
    for place in range(len(payload)):
        changed = bytes([*payload[:place], payload[place] ^ (1 << place % 8), *payload[place + 1 :]])
        with pytest.raises(EntryInvalid):
            verify_entry(entry._replace(payload=changed), key)


async def test_a_changed_measurement_identity_or_partition_is_found(tmp_path: Path) -> None:
    meter, other = Party.new("device"), Party.new("device")
    entry = await stored(tmp_path, meter)
    (m,) = entry.measurements
    changes = [
        {"measurements": (Measurement(m.did, m.observed_at, {"import_j": 6, "power_w": -3}, m.seq, m.provenance),)},
        {"measurements": (Measurement(m.did, m.observed_at + 1, m.registers, m.seq, m.provenance),)},
        {"measurements": (Measurement(m.did, m.observed_at, m.registers, 2, m.provenance),)},
        {"measurements": ()},
        {"did": other.did},
        {"partition": (entry.partition + 1) % 256},
        {"signed": False},
    ]
    for change in changes:
        with pytest.raises(EntryInvalid):
            verify_entry(entry._replace(**change), meter.operation.key)
    with pytest.raises(EntryInvalid, match="signature"):
        verify_entry(entry, other.operation.key)


async def test_an_attested_entry_is_bound_to_its_frame(tmp_path: Path) -> None:
    plain, gateway = Party.new("device"), Party.new("gateway")
    async with ingest_path(tmp_path, unsigned=(plain,)) as path:
        await path.ingest.put([frame_of(plain.did, b'{"t": %d, "import_j": 5}' % T)], PlainCodec())
        entry = await path.journal.entry(1)
    assert entry is not None
    attestation = Attestation(
        did=plain.did,
        frame_sha256=hashlib.sha256(entry.payload).hexdigest(),
        gateway=gateway.did,
        key_version=1,
        network="test",
        observed_at=T,
        registers={"import_j": 5},
    )
    signature = sign(gateway.private, attestation.message())
    data = canonical(SignedAttestation(attestation=attestation, signature=signature).model_dump())
    key = gateway.operation.key
    verify_entry(entry, key, [data])
    for place in range(len(entry.payload)):
        changed = bytes([*entry.payload[:place], entry.payload[place] ^ 1, *entry.payload[place + 1 :]])
        with pytest.raises(EntryInvalid):
            verify_entry(entry._replace(payload=changed), key, [data])
    for place in range(0, len(data), 3):
        with pytest.raises(EntryInvalid):
            verify_entry(entry, key, [bytes([*data[:place], data[place] ^ 1, *data[place + 1 :]])])
    with pytest.raises(EntryInvalid, match="0 attestations"):
        verify_entry(entry, key)
    ((_, stated),) = attested(entry)
    verify_entry(entry, "", [stated])  # its anchor's signature is the one
    for place in range(len(entry.payload)):
        changed = bytes([*entry.payload[:place], entry.payload[place] ^ 1, *entry.payload[place + 1 :]])
        with pytest.raises(EntryInvalid):
            verify_entry(entry._replace(payload=changed), "", [stated])
    (measurement,) = entry.measurements
    for other in ({"observed_at": T + 1}, {"registers": {"import_j": 6}}):
        with pytest.raises(EntryInvalid, match="not of this frame"):
            verify_entry(entry._replace(measurements=(measurement._replace(**other),)), "", [stated])
    with pytest.raises(EntryInvalid, match="not an attestation"):
        verify_entry(entry, key, [signed_payload(plain, T, {"import_j": 5}, 1)])


async def test_refused_frames_come_in_once_their_cause_is_gone(tmp_path: Path) -> None:
    known, late = Party.new("device"), Party.new("device")
    async with ingest_path(tmp_path, known) as path:
        frames = [frame_of(late.did, signed_payload(late, T + n, {"import_j": n}, n)) for n in range(3)]
        frames += [frame_of(late.did, b"rubbish")]
        await path.ingest.put(frames, NativeCodec())
        ids = [item.letter_id for item in await path.journal.letters()]
        assert len(ids) == 4
        path.registry.apply(*registration(late))
        result = await redrive(path.journal, path.ingest, lambda letter: NativeCodec(), [*ids, 999])
        assert (result.stored, result.duplicate, result.refused) == (3, 0, {"malformed": 1})
        (left,) = await path.journal.letters()
        assert (left.reason, left.payload) == ("malformed", b"rubbish")
        result = await redrive(path.journal, path.ingest, lambda letter: None, [left.letter_id])
        assert result.refused == {"no_codec": 1}
        assert len(await path.journal.letters()) == 1


async def test_a_letter_that_is_refused_again_stays_where_its_sender_has_no_room(tmp_path: Path) -> None:
    known = Party.new("device")
    async with ingest_path(tmp_path, known, bounds=LetterBounds(per_sender=3)) as path:
        await path.ingest.put([frame_of(known.did, b"rubbish %d" % n) for n in range(3)], NativeCodec())
        ids = [item.letter_id for item in await path.journal.letters()]
        result = await redrive(path.journal, path.ingest, lambda letter: NativeCodec(), ids)
        assert result.refused == {"malformed": 3}
        assert [item.payload for item in await path.journal.letters()] == [b"rubbish 0", b"rubbish 1", b"rubbish 2"]
