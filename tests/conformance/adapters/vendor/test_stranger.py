"""What a vendor does, in an environment of its own: the wheel with only its base, an adapter's package, its tests.

The packages come from the registry, or uv's cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
UV = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".cache" / "uv" / "bin" / "uv")

pytestmark = pytest.mark.timeout(1800)


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=900, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The example's package and a new one, as `flexrelay adapter new` writes it."""
    folder = tmp_path_factory.mktemp("packages")
    shutil.copytree(
        ROOT / "examples" / "vendor-adapter", folder / "example", ignore=shutil.ignore_patterns("__pycache__")
    )
    made = json.loads(
        run(
            str(Path(sys.executable).with_name("flexrelay")),
            "adapter",
            "new",
            "solar-box",
            "--folder",
            str(folder / "new"),
            "--json",
        )
    )
    assert "pyproject.toml" in made["files"] and made["folder"] == str(folder / "new")
    return folder / "example", folder / "new"


@pytest.fixture(scope="module")
def python(packages: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of a fresh environment with the wheel's base, the test kit and both packages."""
    if not Path(UV).is_file():
        pytest.fail(f"uv is not there ({UV}): `make setup` brings it, or set UV")
    folder = tmp_path_factory.mktemp("stranger")
    run(UV, "build", "--wheel", "--quiet", "--out-dir", str(folder / "dist"), str(ROOT))
    (wheel,) = (folder / "dist").glob("*.whl")
    run(UV, "venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
    interpreter = str(folder / "venv" / "bin" / "python")
    run(UV, "pip", "install", "--quiet", "--python", interpreter, f"{wheel}[testkit]", *map(str, packages))
    return interpreter


def test_only_the_base_is_installed(python: str) -> None:
    listed = json.loads(run(UV, "pip", "list", "--python", python, "--format", "json"))
    names = {package["name"] for package in listed}
    assert {"flexrelay", "flexrelay-acme-hub", "flexrelay-solar-box", "pydantic"} <= names
    heavy = {"mqttium", "typer", "rich", "grpcio", "asyncua", "uvicorn", "starlette", "aiomqtt", "pytest-asyncio"}
    assert not names & heavy and len(names) <= 22, names


def test_adapters_are_found_and_those_without_their_extra_say_so(python: str) -> None:
    code = (
        "import json; from flexrelay_sdk.quality import installed_adapters; "
        "print(json.dumps({a.name: [a.distribution, a.level.word, a.problem] for a in installed_adapters()}))"
    )
    found = json.loads(run(python, "-c", code))
    assert found["acme_hub"] == ["flexrelay-acme-hub", "silver", ""]
    assert found["solar_box"] == ["flexrelay-solar-box", "silver", ""]
    assert "mqttium" in found["mqtt"][2], "the extra that is missing is named"


@pytest.mark.parametrize("index", [0, 1], ids=["example", "new"])
def test_the_packages_own_tests_pass(python: str, packages: tuple[Path, Path], index: int) -> None:
    report = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=packages[index])
    assert " passed" in report and "skipped" not in report, report


def test_the_base_alone_writes_a_new_package(python: str, packages: tuple[Path, Path], tmp_path: Path) -> None:
    run(python, "-m", "flexrelay_sdk.skeleton", "solar-box", str(tmp_path / "box"))

    def written(folder: Path) -> dict[str, bytes]:
        kept = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path.relative_to(folder)): path.read_bytes() for path in kept}

    assert written(tmp_path / "box") == {
        name: content for name, content in written(packages[1]).items() if not name.startswith(("build/", "dist/"))
    }
