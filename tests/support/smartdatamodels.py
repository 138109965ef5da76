"""The official list of smartdatamodels.org, offline: two data files of the wheel `pysmartdatamodels`.

The wheel is fetched once into .cache/ without its dependencies, and none of its code is imported: its functions go to
the network, and some of what it depends on is GPL. Version and the files' hashes are pinned.
"""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

VERSION = "0.8.2.0"
HASHES = {
    "smartdatamodels.json.gz": "1d5593d5a2a777ba0d7d104cf598c59b342199bbceb753afd0c9101ff55a950c",
    "datamodels_metadata.json": "077ae5f831054d9167339de7677ac775791492a0ade95b6df4b2fbbaf77098bb",
}
_CACHE = Path(__file__).parents[2] / ".cache" / f"pysmartdatamodels-{VERSION}"


@dataclass(frozen=True)
class OfficialModel:
    """What the list says of one model: its attributes by name, the required ones and the context's address."""

    subject: str
    required: tuple[str, ...]
    context: str
    attributes: Mapping[str, Mapping[str, Any]]


@cache
def official(*names: str) -> dict[str, OfficialModel]:
    """The official models of these names, e.g. ACMeasurement."""
    folder = _files()
    rows = json.loads(gzip.decompress((folder / "smartdatamodels.json.gz").read_bytes()))
    metadata = json.loads((folder / "datamodels_metadata.json").read_bytes())
    models = {}
    for entry in metadata:
        name = entry["dataModel"]
        if name in names:
            own = [
                row
                for row in rows
                if row["dataModel"] == name and row["repoName"] == entry["subject"] and "parentId" not in row
            ]
            attributes: dict[str, Mapping[str, Any]] = {}
            for (
                row
            ) in own:  # the members of `location` stand among the attributes; the first of a name is the attribute
                attributes.setdefault(row["property"], row)
            models[name] = OfficialModel(entry["subject"], tuple(entry["required"]), entry["@context"], attributes)
    return models


def _files() -> Path:
    if not all(_good(_CACHE / name, digest) for name, digest in HASHES.items()):
        _fetch()
    return _CACHE


def _good(path: Path, digest: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digest


def _fetch() -> None:
    _CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=_CACHE) as scratch:
        requirement = f"pysmartdatamodels=={VERSION}"
        target = ["--no-deps", "--target", scratch, requirement]
        result = subprocess.run([*_installer(), *target], capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{requirement} cannot be fetched from the package index: {result.stderr[-500:]}")
        for name, digest in HASHES.items():
            source = Path(scratch) / "pysmartdatamodels" / "model-assets" / name
            if not _good(source, digest):
                raise RuntimeError(f"{requirement}: {name} is not the file that these tests were written against")
            source.replace(_CACHE / name)


def _installer() -> list[str]:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    for python in (sys.executable, getattr(sys, "_base_executable", ""), shutil.which("python3") or ""):
        if (
            python
            and not subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode
        ):
            return [python, "-m", "pip", "install", "--quiet"]
    raise RuntimeError("neither uv nor pip is there to fetch pysmartdatamodels; set UV to the path of uv")
