"""Good inputs with something changed in them, for fuzzing decoders: many, fast, and the same again from a seed."""

import random
from collections.abc import Iterator, Sequence

_TOKENS = (
    b"", b"0", b"-1", b"1e999", b"1.5", b"9007199254740992", b"-0", b"NaN", b"Infinity", b"null", b"true", b"false",
    b"{}", b"[]", b"[[[[[[[[", b"}}", b'""', b'"', b"\\u0000", b"\\ud800", b"\\", b",", b":", b" ", b"\n", b"\x00",
    b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xc3\xa9", b"\xed\xa0\x80", b"\xf4\x8f\xbf\xbf", b'"v":1,', b'"v":true',
    b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff\xff\xff\xff\xff", b"A" * 300, b"9" * 40,
)  # fmt: skip


def mutants(samples: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` inputs made of the samples by one to four changes each: bits, bytes, pieces cut, repeated, moved or
    exchanged between samples, tokens that decoders stumble over; now and then nothing but chance."""
    chance = random.Random(seed)
    below = chance.randrange
    for number in range(count):
        if number % 64 == 0:
            yield chance.randbytes(below(200))
            continue
        data = bytearray(samples[below(len(samples))])
        for _ in range(1 + below(4)):
            _change(data, samples, chance)
        yield bytes(data)


def _change(data: bytearray, samples: Sequence[bytes], chance: random.Random) -> None:
    below = chance.randrange
    kind = below(8)
    at = below(len(data) + 1)
    if kind == 0 and data:
        data[at % len(data)] ^= 1 << below(8)
    elif kind == 1 and data:
        data[at % len(data)] = below(256)
    elif kind == 2:
        del data[at : at + 1 + below(8)]
    elif kind == 3:
        data[at:at] = _TOKENS[below(len(_TOKENS))]
    elif kind == 4:
        data[at : at + 1 + below(6)] = _TOKENS[below(len(_TOKENS))]
    elif kind == 5:
        piece = data[at : at + 1 + below(32)]
        to = below(len(data) + 1)
        data[to:to] = piece
    elif kind == 6:
        other = samples[below(len(samples))]
        start = below(len(other) + 1)
        data[at:] = other[start:]
    else:
        del data[at:]
