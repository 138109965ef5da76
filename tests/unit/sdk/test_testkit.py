"""The test kit itself: captured frames that are not whole are refused; the fuzzer notices what codecs must not do."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest

from flexrelay_schemas.measurement import Measurement
from flexrelay_sdk import Codec, Decoded, DecodeError, Frame, SinkUnavailable
from flexrelay_sdk.testkit import CodecContract, FrameCase, RecordingSink, SinkCrash, fuzz, load_frames

FRAME = Frame("toy", "d", b'{"p": 12}', 1_700_000_000_000)


class Toy:
    """Decodes {"p": number}; `fault` is what it does wrong."""

    def __init__(self, fault: str = "") -> None:
        self._fault = fault

    def decode(self, frame: Frame) -> Decoded:
        if self._fault == "raises":
            return Decoded((Measurement("", 1, {"power_w": json.loads(frame.payload)["p"]}),))
        try:
            value: Any = json.loads(frame.payload)["p"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise DecodeError("Not JSON" if self._fault == "reason" else "not_json", "no") from None
        if self._fault == "floats" and type(value) in (int, float) and math.isfinite(value):
            return Decoded((Measurement("", 1, {"power_w": value / 1}),))
        if type(value) is not int or abs(value) > 2**53 - 1:
            raise DecodeError("not_a_number", "no")
        return Decoded((Measurement("", 1, {"watts" if self._fault == "names" else "power_w": value}),))


def test_a_sound_codec_passes_the_fuzzer_and_repeats_by_seed() -> None:
    taken = fuzz([Toy()], [FRAME], 5_000, 1)
    assert 0 < taken < 5_000 and taken == fuzz([Toy()], [FRAME], 5_000, 1)


@pytest.mark.parametrize("fault", ["raises", "floats", "names", "reason"])
def test_the_fuzzer_notices(fault: str) -> None:
    with pytest.raises(AssertionError, match="seed 7"):
        fuzz([Toy(fault)], [FRAME], 5_000, 7)


def case(folder: Path, expected: Any = None, about: str = 'source = "here"', frame: str = "frame.json") -> Path:
    folder.mkdir(parents=True)
    (folder / "case.toml").write_text(about)
    (folder / frame).write_bytes(FRAME.payload if not frame.endswith("hex") else b"7b 22 70 22 # p\n3a 31 32 7d")
    (folder / "expected.json").write_text(json.dumps(expected or {"readings": [{"registers": {"power_w": 12}}]}))
    return folder


@pytest.mark.parametrize("frame", ["frame.json", "frame.bin", "frame.txt", "frame.hex"])
def test_a_captured_frame_in_any_form(tmp_path: Path, frame: str) -> None:
    case(tmp_path / "a", about='credential = "m"\nchannel = "c"\nreceived_at = 5\n[config]\nx = 1', frame=frame)
    (loaded,) = load_frames(tmp_path, "toy")
    assert loaded.frame.payload.replace(b" ", b"") == b'{"p":12}'
    assert (loaded.name, loaded.frame.credential, loaded.frame.channel, loaded.frame.received_at) == ("a", "m", "c", 5)
    assert loaded.config == {"x": 1}
    loaded.check(Toy())


@pytest.mark.parametrize(
    "expected",
    [
        {"refused": "not_json"},
        {"readings": [{"registers": {"power_w": 13}}]},
        {"readings": [{"registers": {"power_w": 12}, "seq": 1}]},
        {"readings": [{"registers": {"power_w": 12}}, {}]},
    ],
)
def test_another_outcome_fails(tmp_path: Path, expected: Any) -> None:
    case(tmp_path / "a", expected)
    (loaded,) = load_frames(tmp_path, "toy")
    with pytest.raises(AssertionError):
        loaded.check(Toy())


def test_cases_that_are_not_whole_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no case"):
        load_frames(tmp_path, "toy")
    broken = case(tmp_path / "a")
    (broken / "frame.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a needs one of frame\.bin"):
        load_frames(tmp_path, "toy")
    (broken / "frame.bin").unlink()
    (broken / "expected.json").write_text("{}")
    with pytest.raises(ValueError, match="names neither readings nor"):
        load_frames(tmp_path, "toy")


class TestToyCodec(CodecContract):
    """The codec's contract on cases that the plugin makes parameters of."""

    protocol = "mqtt"
    frames = Path(__file__).parents[2] / "conformance" / "adapters" / "mqtt" / "frames"
    fuzz_inputs = 500

    def codec(self, config: Any) -> Codec:
        from flexrelay_sdk.mapping import Mapping, MappingCodec

        return MappingCodec(Mapping.model_validate(config))

    def test_the_case_has_a_name(self, frame_case: FrameCase) -> None:
        assert frame_case.folder.name == frame_case.name


async def test_the_sink_of_the_plugin(recording_sink: RecordingSink) -> None:
    sink = recording_sink
    sink.crash, sink.refuse = 1, 1
    with pytest.raises(SinkCrash):
        await sink.put([FRAME], Toy())
    with pytest.raises(SinkUnavailable):
        await sink.put([FRAME], Toy())
    sink.hold()
    waiting = asyncio.create_task(sink.put([FRAME, FRAME._replace(payload=b"{")], Toy()))
    await asyncio.sleep(0)
    assert (sink.waiting, sink.stored) == (2, [])
    sink.release()
    receipts = await waiting
    assert [receipt.outcome.value for receipt in receipts] == ["stored", "dead_letter"]
    assert (sink.values(), sink.waiting, sink.batches, sink.entered, sink.refused) == ([12], 0, [2], 3, 1)
    await sink.put([FRAME._replace(payload=b"{}")], Toy("raises"))
    await sink.put([], Toy())
    assert [fault.split(":")[0] for fault in sink.faults] == ["the codec raised KeyError", "an empty batch"]
