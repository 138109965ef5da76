"""The official Go client and Go chaincode, built from tests/benchmarks/fabric_go as Fabric itself is built."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from flexrelay.network.build import cache, go
from flexrelay.network.errors import BuildError

_PROGRAMS: Final = ("chaincode", "client")


def build() -> Path:
    """The folder with `chaincode` and `client`, built when the cache has none of these sources. Raises BuildError."""
    source = Path(__file__).resolve().parents[4] / "tests" / "benchmarks" / "fabric_go"
    if not (source / "go.mod").is_file():
        raise BuildError(f"the Go programs to compare with are in a checkout only: {source} does not exist")
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(source)).encode() + b"\0" + path.read_bytes())
    place = cache() / "benchmarks"
    target = place / digest.hexdigest()[:16]
    if not target.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=place))
        try:
            environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}
            command = [go(), "build", "-trimpath", "-o", f"{draft}/", *(f"./{name}" for name in _PROGRAMS)]
            done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BuildError(f"`{' '.join(command)}` in {source} failed:\n{done.stderr.strip()[-2000:]}")
            if not target.is_dir():  # somebody else may have been faster
                draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target
