"""The pytest plugin (entry point `flexrelay`): fixtures for adapters' own tests, and captured frames as parameters.

A test class with `frames = Path("…")` and `protocol = "…"` gets its test parameter `frame_case` from that folder.
"""

from __future__ import annotations

import os
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


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "soak: long counts; with FLEXRELAY_SOAK=1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A codec's million inputs run when they are asked for."""
    if os.environ.get("FLEXRELAY_SOAK"):
        return
    long = [item for item in items if item.name.startswith("test_a_million_inputs") and item.get_closest_marker("soak")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


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
