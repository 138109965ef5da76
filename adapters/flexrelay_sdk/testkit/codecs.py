"""The contract of a codec: captured frames decode as expected, and no bytes make it do anything but refuse.

class TestAcmeCodec(CodecContract):
    protocol = "acme"
    frames = Path(__file__).parent / "frames"
    def codec(self, config): return AcmeCodec(**config)
"""

import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from flexrelay_schemas.canonical import MAX_INTEGER
from flexrelay_schemas.reading import REGISTERS
from flexrelay_sdk.frame import Codec, DecodeError, Frame
from flexrelay_sdk.testkit.frames import FrameCase, load_frames

FUZZ_INPUTS = 20_000
SOAK_INPUTS = 1_000_000


class CodecContract:
    """`frames` holds at least one good and one refused case."""

    protocol: ClassVar[str]
    frames: ClassVar[Path]
    fuzz_inputs: ClassVar[int] = FUZZ_INPUTS

    def codec(self, config: Mapping[str, Any]) -> Codec:
        """The codec for a case's [config]."""
        raise NotImplementedError(f"{type(self).__name__}.codec(config)")

    def test_a_captured_frame(self, frame_case: FrameCase) -> None:
        assert frame_case.source, f"{frame_case.folder}/case.toml: `source` says where the frame is from"
        frame_case.check(self.codec(frame_case.config))

    def test_good_and_bad_frames_are_captured(self) -> None:
        cases = load_frames(self.frames, self.protocol)
        assert any("readings" in case.expected for case in cases)
        assert any("refused" in case.expected for case in cases)

    def test_whatever_the_bytes_are_it_refuses_or_measures(self) -> None:
        """Mutations of the captured frames; the seed is printed, FLEXRELAY_SEED repeats it."""
        self._fuzz(self.fuzz_inputs)

    @pytest.mark.soak
    def test_a_million_inputs(self) -> None:
        """Only with FLEXRELAY_SOAK set: the plugin leaves it out otherwise."""
        self._fuzz(SOAK_INPUTS)

    def _fuzz(self, count: int) -> None:
        seed = int(os.environ.get("FLEXRELAY_SEED") or time.time_ns() % 2**32)
        print(f"FLEXRELAY_SEED={seed}")
        cases = load_frames(self.frames, self.protocol)
        codecs = [self.codec(case.config) for case in cases]
        taken = fuzz(codecs, [case.frame for case in cases], count, seed)
        print(f"{type(self).__name__}: {count:,} inputs, {taken:,} made readings")


def fuzz(codecs: list[Codec], frames: list[Frame], count: int, seed: int) -> int:
    """Feed mutated frames; how many made readings. Raises AssertionError with seed and bytes for anything but a
    DecodeError or sound measurements."""
    chance = random.Random(seed)  # noqa: S311  # repeatable on purpose
    taken = 0
    for number in range(count):
        index = number % len(frames)
        frame = frames[index]._replace(payload=mutated(frames[index].payload, chance))
        try:
            decoded = codecs[index].decode(frame)
        except DecodeError as error:
            assert error.reason and error.reason == error.reason.lower(), f"seed {seed}: reason {error.reason!r}"
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}, input {number}: {error!r} of {frame.payload[:400]!r}") from error
        for measurement in decoded.measurements:
            for name, value in measurement.registers.items():
                sound = name in REGISTERS and type(value) is int and -MAX_INTEGER <= value <= MAX_INTEGER
                assert sound, f"seed {seed}, input {number}: {name}={value!r} of {frame.payload[:400]!r}"
            assert type(measurement.observed_at) is int, f"seed {seed}, input {number}: {measurement.observed_at!r}"
        taken += 1
    return taken


def mutated(payload: bytes, chance: random.Random) -> bytes:
    """The payload with a few changes: bytes flipped, cut, doubled, put in, or all random."""
    if chance.random() < 0.05:
        return chance.randbytes(chance.randrange(200))
    data = bytearray(payload)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randrange(8)
            case 1 if data:
                data[at % len(data)] = chance.choice(_EDGES)
            case 2:
                del data[at:]
            case 3:
                del data[at : at + chance.randrange(1, 8)]
            case 4:
                data[at:at] = data[at : at + chance.randrange(1, 16)]
            case _:
                data[at:at] = chance.choice(_PIECES)
    return bytes(data)


_EDGES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF, 0x22, 0x2C, 0x30, 0x5B, 0x7B)
_PIECES = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"1e999", b"-", b"NaN", b'"', b"9" * 50, b"[" * 100, b"\\ud800")
