"""Captured frames as data: a folder a case, so that a frame from the field becomes a test by putting it there.

    <case>/
      frame.bin | frame.json | frame.txt | frame.hex    the exact bytes (hex: white space and # comments are ignored)
      case.toml        credential, channel, received_at (UTC ms); anything under [config] is the adapter's to read
      expected.json    {"readings": [{"observed_at": …, "registers": {…}, "seq": …, "did": …, "provenance": …,
                       "notice": …}, …]} or {"refused": "<reason>"}

`source` in case.toml says where the frame is from: a device, or the documentation that shows it.
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexrelay_sdk.frame import Codec, DecodeError, Frame

FRAME_FILES = ("frame.bin", "frame.json", "frame.txt", "frame.hex")
_RECEIVED_AT = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class FrameCase:
    """One captured frame and what must come of it."""

    name: str
    folder: Path
    frame: Frame
    config: Mapping[str, Any]
    expected: Mapping[str, Any]
    source: str

    def check(self, codec: Codec) -> None:
        """Decode and compare. Raises AssertionError that shows both."""
        actual = outcome(codec, self.frame, self.expected)
        assert actual == dict(self.expected), f"{self.folder}: {json.dumps(actual)} instead of {dict(self.expected)}"


def load_frames(folder: Path, protocol: str) -> list[FrameCase]:
    """The cases below `folder`, by name. Raises ValueError for a case that is not whole, or when there is none."""
    cases = [_load(case, protocol) for case in sorted(folder.iterdir()) if (case / "case.toml").is_file()]
    if not cases:
        raise ValueError(f"{folder} holds no case: a folder with case.toml, a frame and expected.json")
    return cases


def outcome(codec: Codec, frame: Frame, like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a codec makes of a frame, in the form of expected.json; of each reading only what `like` names."""
    try:
        decoded = codec.decode(frame)
    except DecodeError as error:
        return {"refused": error.reason}
    wanted = list((like or {}).get("readings", []))
    readings = []
    for number, measurement in enumerate(decoded.measurements):
        whole = {
            "observed_at": measurement.observed_at,
            "registers": dict(measurement.registers),
            "seq": measurement.seq,
            "did": measurement.did,
            "provenance": measurement.provenance.name.lower(),
            "notice": int(measurement.notice),
        }
        names = wanted[number].keys() if number < len(wanted) else whole.keys()
        readings.append({name: whole[name] for name in whole if name in names})
    return {"readings": readings}


def _load(folder: Path, protocol: str) -> FrameCase:
    about = tomllib.loads((folder / "case.toml").read_text())
    frames = [folder / name for name in FRAME_FILES if (folder / name).is_file()]
    if len(frames) != 1:
        raise ValueError(f"{folder} needs one of {', '.join(FRAME_FILES)}")
    read: Callable[[Path], bytes] = _hex if frames[0].suffix == ".hex" else Path.read_bytes
    expected = json.loads((folder / "expected.json").read_text())
    if not expected.get("readings") and not expected.get("refused"):
        raise ValueError(f"{folder}/expected.json names neither readings nor why the frame is refused")
    frame = Frame(
        protocol,
        about.get("credential", "device-1"),
        read(frames[0]),
        about.get("received_at", _RECEIVED_AT),
        about.get("channel", ""),
    )
    return FrameCase(folder.name, folder, frame, about.get("config", {}), expected, about.get("source", ""))


def _hex(file: Path) -> bytes:
    lines = [line.partition("#")[0] for line in file.read_text().splitlines()]
    return bytes.fromhex("".join("".join(lines).split()))
