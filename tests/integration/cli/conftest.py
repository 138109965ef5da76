"""One founded and one populated data folder, copied for each test that changes it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.pilot import found, populate


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A founded network nobody takes part in yet; not to be changed."""
    folder = tmp_path_factory.mktemp("founded") / "pilot"
    found(folder)
    return folder


@pytest.fixture(scope="session")
def populated(founded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With actors, devices and anchored readings; not to be changed."""
    folder = tmp_path_factory.mktemp("populated") / "pilot"
    shutil.copytree(founded, folder)
    populate(folder)
    return folder


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A copy of a folder that the test may change."""

    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(folder, tmp_path / "pilot"))

    return copy
