"""A segment: the entries of one commit as bytes. Layout 1, little-endian, one entry after the other.

Entry: flags u8 (bit 0: signed), partition u8, lengths of did u8 and protocol u8, number of measurements u16, lengths
of credential u16, channel u16 and payload u32, received_at i64; then did, protocol, credential, channel (UTF-8), the
measurements, the payload. Measurement: observed_at i64, seq i64 (-1: none), provenance u8, notice u8, registers.
"""

import struct
from collections.abc import Sequence
from typing import Final

from flexrelay.journal.port import Entry
from flexrelay.journal.registers import REGISTERS_SIZE, pack_registers, unpack_registers
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.quality import Notice, Provenance

_ENTRY: Final = struct.Struct("<BBBBHHHIq")
_MEASUREMENT: Final = struct.Struct("<qqBB")
MAX_MEASUREMENTS: Final = 65_535
"""Of one entry."""

_SIGNED: Final = 1
_PROVENANCE: Final = {int(value): value for value in Provenance}
_NOTICES: Final = tuple(Notice(value) for value in range(32))


def encode_segment(entries: Sequence[Entry]) -> bytes:
    """Raises ValueError for an entry that does not fit the layout (text too long, unknown register)."""
    parts: list[bytes] = []
    try:
        for (
            _,
            partition,
            did,
            protocol,
            credential,
            channel,
            received_at,
            signed,
            payload,
            measurements,
            block,
        ) in entries:
            name, transport, sender, place = did.encode(), protocol.encode(), credential.encode(), channel.encode()
            parts += (
                _ENTRY.pack(
                    1 if signed else 0,
                    partition,
                    len(name),
                    len(transport),
                    len(measurements),
                    len(sender),
                    len(place),
                    len(payload),
                    received_at,
                ),
                name,
                transport,
                sender,
                place,
                block or b"".join([encode_measurement(item, pack_registers(item.registers)) for item in measurements]),
                payload,
            )
    except struct.error as error:
        raise ValueError(f"an entry does not fit the journal: {error}") from None
    return b"".join(parts)


def encode_measurement(measurement: Measurement, packed: bytes) -> bytes:
    """The bytes of a measurement whose registers' bytes are `packed`."""
    seq = measurement.seq
    return (
        _MEASUREMENT.pack(
            measurement.observed_at, -1 if seq is None else seq, measurement.provenance, measurement.notice
        )
        + packed
    )


def decode_segment(body: bytes, first: int, count: int, skip: int = 0) -> list[Entry]:
    """The entries of a segment whose first position is `first`, without the first `skip`.

    Raises ValueError for bytes that are no segment of `count` entries.
    """
    entries: list[Entry] = []
    offset = 0
    try:
        for index in range(count):
            flags, partition, n_did, n_protocol, n_measurements, n_credential, n_channel, n_payload, received_at = (
                _ENTRY.unpack_from(body, offset)
            )
            offset += _ENTRY.size
            if index < skip:
                offset += n_did + n_protocol + n_credential + n_channel
                for _ in range(n_measurements):
                    offset += _MEASUREMENT.size
                    offset += REGISTERS_SIZE[body[offset]]
                offset += n_payload
                continue
            did = body[offset : (offset := offset + n_did)].decode()
            protocol = body[offset : (offset := offset + n_protocol)].decode()
            credential = body[offset : (offset := offset + n_credential)].decode()
            channel = body[offset : (offset := offset + n_channel)].decode()
            measurements: list[Measurement] = []
            for _ in range(n_measurements):
                observed_at, seq, provenance, notice = _MEASUREMENT.unpack_from(body, offset)
                registers, offset = unpack_registers(body, offset + _MEASUREMENT.size)
                measurements.append(
                    Measurement(
                        did,
                        observed_at,
                        registers,
                        None if seq < 0 else seq,
                        _PROVENANCE[provenance],
                        _NOTICES[notice],
                    )
                )
            payload = body[offset : (offset := offset + n_payload)]
            if len(payload) != n_payload or flags > _SIGNED:
                raise ValueError("an entry is cut off")
            entries.append(
                Entry(
                    first + index,
                    partition,
                    did,
                    protocol,
                    credential,
                    channel,
                    received_at,
                    flags == _SIGNED,
                    payload,
                    tuple(measurements),
                )
            )
    except (struct.error, KeyError, IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"not a segment: {error}") from None
    if offset != len(body):
        raise ValueError(f"{len(body) - offset} bytes too many after the last entry")
    return entries


Trace = tuple[int, bytes, int, int, bytes]
"""What register checks need of one measurement: position, DID, observed_at, seq (-1: none), the registers' bytes."""


def traces(body: bytes, first: int, count: int) -> list[Trace]:
    """The measurements of a segment without its payloads: several times faster than `decode_segment`."""
    found: list[Trace] = []
    offset = 0
    unpack, measure, size, step = _ENTRY.unpack_from, _MEASUREMENT.unpack_from, _ENTRY.size, _MEASUREMENT.size
    for position in range(first, first + count):
        _, _, n_did, n_protocol, n_measurements, n_credential, n_channel, n_payload, _ = unpack(body, offset)
        offset += size
        did = body[offset : offset + n_did]
        offset += n_did + n_protocol + n_credential + n_channel
        for _ in range(n_measurements):
            observed_at, seq, _, _ = measure(body, offset)
            offset += step
            end = offset + REGISTERS_SIZE[body[offset]]
            found.append((position, did, observed_at, seq, body[offset:end]))
            offset = end
        offset += n_payload
    return found
