"""The file drop passes the SDK's contract."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

from flexrelay_adapters.files import make_adapter
from flexrelay_sdk.quality import violations
from flexrelay_sdk.testkit import AdapterContract, Promise, Rig

from .rig import FilesRig


class TestFiles(AdapterContract):
    without: ClassVar = {
        Promise.CREDENTIALS: "a folder has no password: the operating system says who may write",
        Promise.COMMANDS: "a file carries nothing back",
        Promise.SLEEP: "a file carries nothing back",
    }

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        return FilesRig.open(tmp_path)


def test_it_is_what_its_quality_toml_says() -> None:
    assert violations("files", make_adapter, [TestFiles]) == []
