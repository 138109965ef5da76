"""Fabric's programs, built from the pinned Go modules in deploy/fabric and kept in a cache.

A build's folder is named by the hash of its go.mod and go.sum and appears at once, whole: so nothing is built twice,
and whoever is killed in between leaves only a draft that the next build removes.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flexrelay.network import toolchain
from flexrelay.network.errors import BuildError
from flexrelay.network.toolchain import Progress, locked, run

PROGRAMS: Final = ("peer", "orderer", "configtxgen", "cryptogen", "osnadmin")
CACHE_VARIABLE: Final = "FLEXRELAY_FABRIC_CACHE"
MODULE: Final = "github.com/hyperledger/fabric"


@dataclass(frozen=True, slots=True)
class Binaries:
    """A finished build: `bin/` with the programs, `config/` with the sample core.yaml and orderer.yaml."""

    version: str
    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config"

    def path(self, program: str) -> str:
        return str(self.folder / "bin" / program)


def ensure(version: str, progress: Progress | None = None) -> Binaries:
    """The programs of a version ("3.1", "2.5"), built when the cache has none. Raises BuildError."""
    source = _modules() / f"v{version}"
    if not (source / "go.mod").is_file():
        raise BuildError(f"there is no Go module for Fabric {version} in {source.parent}")
    place = cache() / f"v{version}"
    target = place / _digest(source)
    if not target.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        with locked(place / "lock"):
            if not target.is_dir():
                _build(source, target, progress or _silent)
    return Binaries(version, target)


def cache() -> Path:
    """Where builds are kept: $FLEXRELAY_FABRIC_CACHE, the checkout's `.cache/fabric`, or the user's cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).absolute()
    checkout = _checkout()
    if checkout is not None:
        return checkout / ".cache" / "fabric"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flexrelay" / "fabric"


def go(progress: Progress | None = None) -> str:
    """The Go toolchain, see `toolchain`. Raises BuildError."""
    return toolchain.find(cache() / "go", progress or _silent)


def _silent(what: str, done: int, total: int) -> None:
    pass


def _modules() -> Path:
    """The folder of Go modules: deploy/fabric of a checkout; beside this file in a wheel."""
    checkout = _checkout()
    return Path(__file__).parent / "modules" if checkout is None else checkout / "deploy" / "fabric"


def _checkout() -> Path | None:
    """The repository that this file lies in, if it does."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() and (root / "deploy" / "fabric").is_dir() else None


def _digest(source: Path) -> str:
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((source / name).read_bytes())
    return digest.hexdigest()[:16]


def _build(source: Path, target: Path, progress: Progress) -> None:
    tool = go(progress)
    for left in target.parent.glob(".draft-*"):  # the lock is ours: whoever made them is gone
        shutil.rmtree(left, ignore_errors=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=target.parent))
    module = draft / "module"
    module.mkdir()
    for name in ("go.mod", "go.sum"):  # a wheel's folder may be read-only
        shutil.copyfile(source / name, module / name)
    environment = {
        **os.environ,
        "GOBIN": str(draft / "bin"),
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly",
        "GOWORK": "off",
    }
    progress("downloading Go modules", 0, 0)
    sample = Path(run([tool, "list", "-m", "-f", "{{.Dir}}", MODULE], module, environment).strip() or "/nowhere")
    if not sample.is_dir():
        run([tool, "mod", "download", MODULE], module, environment)
        sample = Path(run([tool, "list", "-m", "-f", "{{.Dir}}", MODULE], module, environment).strip())
    total = len(run([tool, "list", "-deps", "tool"], module, environment).splitlines())
    _install([tool, "install", "-v", "-trimpath", "tool"], module, environment, total, progress)
    missing = [name for name in PROGRAMS if not (draft / "bin" / name).is_file()]
    if missing:
        raise BuildError(f"{source}: the build made no {', '.join(missing)}; its go.mod must name them as tools")
    (draft / "config").mkdir()
    for name in ("core.yaml", "orderer.yaml"):
        shutil.copyfile(sample / "sampleconfig" / name, draft / "config" / name)
    shutil.rmtree(module)
    draft.rename(target)


def _install(command: list[str], cwd: Path, environment: dict[str, str], total: int, progress: Progress) -> None:
    """Run `go install -v`, which names every package that it compiles."""
    done, said = 0, [""]
    with subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            done += 1
            said = [*said[-20:], line.rstrip()]
            progress("compiling Fabric", min(done, total), total)
    if process.returncode:
        raise BuildError(f"`{' '.join(command)}` failed:\n" + "\n".join(said))
    progress("compiling Fabric", total, total)
