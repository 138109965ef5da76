"""Protobuf's wire form, written by hand for the one message that is made for every call: building it from generated
classes costs four times as much."""


def varint(value: int) -> bytes:
    """A number that is not negative."""
    if value < 0x80:
        return bytes((value,))
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def number(tag: int, value: int) -> bytes:
    """A field of a whole number; zero is not written."""
    return varint(tag << 3) + varint(value) if value else b""


def data(tag: int, value: bytes) -> bytes:
    """A field of bytes, text or a message; written when it is empty too (as in a list or a message that is there)."""
    return varint(tag << 3 | 2) + varint(len(value)) + value
