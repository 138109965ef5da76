"""One run of `flexrelay demo` for all acceptance tests, as a user starts it, and the auditor's reading of its folder.

FLEXRELAY_DEMO_FOLDER names the data folder of a finished run to use instead, for work on these tests.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from acceptance.independent.blocks import Chain, read_chain
from acceptance.independent.journals import Holder, read_holder
from acceptance.independent.market import Market

ORGS = ("dso", "agg-a", "agg-b")
LIMIT_S = 1500
"""Three attempts of a machine that is too slow for the first lead still fit in."""


@dataclass
class Run:
    """A finished demo: its folder, its report, and what stood in the terminal (empty for a run that was named)."""

    folder: Path
    report: dict[str, Any]
    output: str

    @cached_property
    def chain(self) -> Chain:
        return read_chain(self.folder / "ledger" / "blocks.dat")

    @cached_property
    def holders(self) -> dict[str, Holder]:
        return {org: read_holder(self.folder, org, self.chain.keys, "demo") for org in ORGS}

    @cached_property
    def market(self) -> Market:
        return Market(self.chain, self.holders)

    def named(self, account: str) -> str:
        """An account with the name of its owner instead of the DID, which differs from run to run."""
        for did, name in self.report["names"].items():
            account = account.replace(did, name)
        return account


def tell(folder: Path, *options: str) -> Run:
    """A demo into a folder that is named as the default one is: relative to where the user stands."""
    report = folder.with_suffix(".json")
    program = Path(sys.executable).with_name("flexrelay")
    command = [program, "demo", "--no-serve", "--report", report, "--folder", folder.name, "--lead", "60", *options]
    try:
        done = subprocess.run(
            command, cwd=folder.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired as late:
        output = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout
        pytest.fail(f"flexrelay demo did not end within {LIMIT_S} s\n{output}", pytrace=False)
    if done.returncode:
        pytest.fail(f"flexrelay demo ended with {done.returncode}\n{done.stdout}", pytrace=False)
    return Run(folder, json.loads(report.read_text()), done.stdout)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    named = os.environ.get("FLEXRELAY_DEMO_FOLDER")
    if named:
        folder = Path(named)
        yield Run(folder, json.loads((folder / "report.json").read_text()), "")
        return
    root = tmp_path_factory.mktemp("demo")
    yield tell(root / "run")
    shutil.rmtree(root)


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    """A copy of the data folder that a test may open and change."""
    return Path(shutil.copytree(run.folder, tmp_path / "copy"))
