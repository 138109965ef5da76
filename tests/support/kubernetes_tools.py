"""The programs of scripts/kubernetes.sh, and how the tests run them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).resolve().parents[2]
_CACHE = _ROOT / ".cache" / "kubernetes"
CHART = _ROOT / "deploy" / "fabric" / "chart"
SCHEMAS = _CACHE / "tools" / "schemas"

Manifest = dict[str, Any]


def tool(name: str) -> str:
    """Path of `compose`, `helm` or `kubeconform`; skips the test where they could not be built."""
    return _program("tools", name, "scripts/kubernetes.sh")


def server(name: str) -> str:
    """Path of `kube-apiserver` or `etcd`; skips the test where they are not built."""
    return _program("server", name, "scripts/kubernetes.sh server")


def run(command: Sequence[str], *, cwd: Path | None = None) -> str:
    """Standard output; fails the test with all that a failed command has said."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}", pytrace=False)
    return done.stdout


def template(values: Path, *options: str, name: str = "net") -> list[Manifest]:
    """What `helm template` makes of the chart with these values."""
    text = run([tool("helm"), "template", name, str(CHART), "-f", str(values), *options])
    return [document for document in yaml.safe_load_all(text) if document]


def _program(what: str, name: str, script: str) -> str:
    path = _CACHE / what / "bin" / name
    if not (_CACHE / what / "stamp").is_file() or not path.is_file():
        pytest.skip(f"{name} is not built: {script}")
    return str(path)
