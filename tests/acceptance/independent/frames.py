"""Frames of devices that do not sign, read by the protocols' own definitions: SenML CBOR (RFC 8428) of LwM2M's objects
3421 and 3411, and OPC UA's MonitoredItemNotifications (Part 4 §7.25, Part 6 §5.2) below a table of their nodes."""

import struct
from fractions import Fraction

import cbor2

_NAME, _VALUE, _TIME, _BASE_NAME, _BASE_TIME = 0, 2, 6, -2, -3
_RESOURCES = {
    "/3421/0/23": ("power_w", 1),
    "/3421/0/25": ("import_j", 3600),
    "/3421/0/26": ("export_j", 3600),
    "/3411/0/1": ("soc_permille", 10),
}
"""Resource → register, and how many of its unit one of the resource's unit is (W, Wh, Wh, %)."""
_TICKS_1970, _TICKS_MS = 116_444_736_000_000_000, 10_000
_VALUE_BIT, _STATUS_BIT, _SOURCE_BIT, _SERVER_BIT = 1, 2, 4, 8
_INT64 = 8

Readings = dict[int, dict[str, int]]
"""Registers by instant."""


def readings_of(protocol: str, payload: bytes) -> Readings:
    return {"lwm2m": _senml, "opcua": _opcua}[protocol](payload)


def _senml(payload: bytes) -> Readings:
    found: Readings = {}
    base, base_time = "", Fraction(0)
    for record in cbor2.loads(payload):
        base, base_time = record.get(_BASE_NAME, base), Fraction(record.get(_BASE_TIME, base_time))
        register, factor = _RESOURCES[base + record.get(_NAME, "")]
        instant = (base_time + Fraction(record.get(_TIME, 0))) * 1000
        assert instant.denominator == 1, "not a whole millisecond"
        found.setdefault(int(instant), {})[register] = round(Fraction(record[_VALUE]) * factor)
    return found


def _opcua(payload: bytes) -> Readings:
    magic, _, shift_ms, size = struct.unpack_from("<4sBBH", payload)
    assert (magic, shift_ms) == (b"OUA1", 0)
    offset, end = 8, 8 + size
    names: dict[int, str] = {}
    while offset < end:
        handle, length = struct.unpack_from("<IH", payload, offset)
        offset += 6 + length
        names[handle] = payload[offset - length : offset].decode().rpartition(".")[2]
    found: Readings = {}
    while offset < len(payload):
        handle, mask, kind, value = struct.unpack_from("<IBBq", payload, offset)
        offset += 14
        assert kind == _INT64 and mask & _VALUE_BIT and mask & _SOURCE_BIT
        assert not mask & ~(_VALUE_BIT | _STATUS_BIT | _SOURCE_BIT | _SERVER_BIT)
        if mask & _STATUS_BIT:
            (status,) = struct.unpack_from("<I", payload, offset)
            assert status == 0, "not Good"
            offset += 4
        (ticks,) = struct.unpack_from("<q", payload, offset)
        offset += 8 + 8 * bool(mask & _SERVER_BIT)
        found.setdefault((ticks - _TICKS_1970) // _TICKS_MS, {})[names[handle]] = value
    return found
