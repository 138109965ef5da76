"""The pytest plugin (entry point `flexrelay`): fixtures for adapters' own tests, and captured frames as parameters.

A test class with `frames = Path("…")` and `protocol = "…"` gets its test parameter `frame_case` from that folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flexrelay_sdk.testkit.sink import RecordingSink


@pytest.fixture
def recording_sink() -> RecordingSink:
    """A new `flexrelay_sdk.testkit.RecordingSink`."""
    from flexrelay_sdk.testkit.sink import RecordingSink

    return RecordingSink()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Captured frames, one test each."""
    if "frame_case" not in metafunc.fixturenames:
        return
    from flexrelay_sdk.testkit.frames import load_frames

    owner = metafunc.cls or metafunc.module
    folder, protocol = getattr(owner, "frames", None), getattr(owner, "protocol", None)
    if not isinstance(folder, Path) or not isinstance(protocol, str):
        raise pytest.UsageError(f"{owner.__name__} needs `frames` (a folder) and `protocol` for its frame_case")
    cases = load_frames(folder, protocol)
    metafunc.parametrize("frame_case", cases, ids=[case.name for case in cases])
