"""What the documents say can be followed: links, commands, make targets and samples are there and work."""

import ast
import asyncio
import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer

from flexrelay.adapters import load_adapter
from flexrelay.cli.bench import BENCHES, LONG
from flexrelay.cli.main import app
from flexrelay.config import Config, load
from flexrelay_schemas.product import Product
from flexrelay_sdk import Codec, Frame, Outcome, Receipt, SinkUnavailable

ROOT = Path(__file__).parents[3]
ROOMS = ("docs", "schemas", "chaincode", "adapters", "middleware", "deploy", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.md"))])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
every_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)

LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [body for kind, body in FENCE.findall(page.read_text()) if kind == language]


def code_of(page: Path) -> Iterator[str]:
    """Lines of shell blocks and inline code: where commands stand."""
    text = page.read_text()
    for kind, body in FENCE.findall(text):
        if kind in ("sh", "bash", "console"):
            yield from body.replace("\\\n", " ").splitlines()
    yield from INLINE.findall(FENCE.sub("", text))


def anchors_of(page: Path) -> set[str]:
    """The names that headings can be linked by."""
    found = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        there = (page.parent / name).resolve() if name else page
        assert there.exists(), f"{page.name} links to {target}, which is not there"
        assert there.is_relative_to(ROOT), f"{page.name} links out of the repository: {target}"
        if anchor:
            assert anchor in anchors_of(there), f"{page.name} links to {target}; {there.name} has no such heading"


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    seen = {ROOT / "README.md"}
    todo = list(seen)
    while todo:
        page = todo.pop()
        for target in LINK.findall(page.read_text()):
            there = (page.parent / target.partition("#")[0]).resolve()
            if there.suffix == ".md" and there.exists() and there not in seen:
                seen.add(there)
                todo.append(there)
    missing = [str(page.relative_to(ROOT)) for page in PAGES if page.is_relative_to(ROOT / "docs") and page not in seen]
    assert not missing, f"nothing leads to {', '.join(missing)}"


@every_page
def test_commands_exist(page: Path) -> None:
    program: Any = typer.main.get_command(app)
    for line in code_of(page):
        for call in re.findall(r"(?:^|[\s/])flexrelay ((?:[a-z][a-z-]*(?: |$))+|--?[a-z]+)", line):
            _known(program, call.split(), f"{page.name}: flexrelay {call}")


def _known(command: Any, words: list[str], where: str) -> None:
    commands = getattr(command, "commands", None)  # a group has them
    if words and commands is not None and not words[0].startswith("-"):
        assert words[0] in commands, f"{where}: there are {', '.join(commands)}"
        _known(commands[words[0]], words[1:], where)


@every_page
def test_options_of_the_demo_and_of_bench_exist(page: Path) -> None:
    program: Any = typer.main.get_command(app)
    for line in code_of(page):
        for name, rest in re.findall(r"(?:flexrelay|make) (demo|bench)\b([^|;&#]*)", line):
            parameters = program.commands[name].params
            known = {text for option in parameters for text in (*option.opts, *option.secondary_opts)}
            unknown = set(re.findall(r"--[a-z-]+", rest)) - known - {"--help"}
            assert not unknown, f"{page.name}: flexrelay {name} has no {', '.join(unknown)}"


@every_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in code_of(page):
        for target in re.findall(r"(?:^|[\s])make ([a-z]+)", line):
            assert target in targets, f"{page.name}: make {target}; there are {', '.join(sorted(targets))}"


def test_the_readmes_configuration_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sample,) = blocks(ROOT / "README.md", "toml")
    config = _loaded(sample, tmp_path, monkeypatch)
    assert [gateway.org for gateway in config.gateways] == ["dso"]
    assert config.http.port == 9464


def test_samples_of_the_how_to_pages_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [ROOT / "docs" / "operations.md", *sorted((ROOT / "docs" / "howto").glob("*.md"))]
    samples = [(page, text) for page in pages for text in blocks(page, "toml")]
    assert samples, "no page shows a configuration"
    for number, (page, text) in enumerate(samples):
        if "network" not in tomllib.loads(text):  # a part of one: its adapters are put into a whole
            text = f'network = "pilot"\n[[gateways]]\norg = "dso"\nfolder = "dso"\n{text}'
        folder = tmp_path / str(number)
        folder.mkdir()
        assert _loaded(text, folder, monkeypatch).gateways, page.name


def _loaded(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The configuration, with every adapter's section accepted by its adapter."""
    monkeypatch.setenv("FLEXRELAY_PASSPHRASE", "correct horse")
    (folder / "flexrelay.toml").write_text(text)
    (folder / "secrets").mkdir()
    config = load(folder)
    for gateway in config.gateways:
        for name, section in gateway.adapters.items():
            if "password_file" in section:
                (folder / section["password_file"]).write_text("secret\n")
            if "tokens_file" in section:
                (folder / section["tokens_file"]).write_text(f"backend:{'0' * 64}\n")
            section = {key: value for key, value in section.items() if key != "tls"}  # its files are not here
            assert load_adapter(gateway.org, name, section, folder).endpoint.startswith(
                section.get("host", "127.0.0.1")
            )
    return config


@every_page
def test_json_samples_are_json_and_products_are_products(page: Path) -> None:
    for text in blocks(page, "json"):
        value: Any = json.loads(text)
        if isinstance(value, dict) and "gate_closure" in value:
            Product.model_validate_json(text)


@every_page
def test_python_samples_name_what_exists(page: Path) -> None:
    for text in blocks(page, "python"):
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flexrelay"):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page.name}: {node.module} has no {alias.name}"


def test_the_way_of_a_device_runs_as_it_is_printed() -> None:
    script = blocks(ROOT / "docs" / "howto" / "add-a-device.md", "python")[-1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Receipt(outcome=<Outcome.STORED: 'stored'>, position=1, reason='')"
    assert done.stdout.strip() in (ROOT / "docs" / "howto" / "add-a-device.md").read_text()


async def test_the_adapter_that_is_shown_deletes_what_is_stored_and_nothing_else(tmp_path: Path) -> None:
    samples = blocks(ROOT / "docs" / "howto" / "add-an-adapter.md", "python")
    scope: dict[str, Any] = {}
    exec(compile("\n".join(samples), "add-an-adapter.md", "exec"), scope)
    first, kept, sink = tmp_path / "m1--1.json", tmp_path / "m1--2.json", _Sink()
    first.write_bytes(b"{}")
    adapter = scope["make_folder_adapter"]("drop", {"folder": "."}, tmp_path, None)
    adapter.validate()
    assert adapter.connected
    running = asyncio.create_task(adapter.run(sink))
    try:
        async with asyncio.timeout(60):
            await sink.called.wait()
            while first.exists():  # noqa: ASYNC110  # a file tells nobody that it is gone
                await asyncio.sleep(0.01)
            assert [(frame.credential, frame.payload) for frame in sink.frames] == [("m1", b"{}")]
            sink.called.clear()
            sink.full = True
            kept.write_bytes(b"{}")
            await sink.called.wait()
            await asyncio.sleep(0.05)
        assert kept.exists()
    finally:
        running.cancel()
    with pytest.raises(ValueError, match=r"drop\.folder"):
        scope["FolderAdapter"]("drop", tmp_path / "nowhere", None).validate()


class _Sink:
    """Takes frames, or has no room for them."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.full = False
        self.called = asyncio.Event()

    async def put(self, frames: Sequence[Frame], codec: Codec) -> Sequence[Receipt]:
        self.called.set()
        if self.full:
            raise SinkUnavailable("the disk is full")
        self.frames += frames
        return [Receipt(Outcome.STORED, position) for position, _ in enumerate(frames, 1)]


@pytest.mark.parametrize("name", ["architecture.svg", "transformer.svg", "merit-order.svg"])
def test_pictures_are_svg_with_a_title(name: str) -> None:
    root = ElementTree.parse(ROOT / "docs" / "pictures" / name).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{http://www.w3.org/2000/svg}title") is not None


def test_the_changelog_knows_this_version() -> None:
    version = importlib.metadata.version("flexrelay")
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_metrics_in_the_operations_page_are_those_of_the_gateway() -> None:
    text = (ROOT / "middleware" / "flexrelay" / "app.py").read_text()
    made = set(re.findall(r'Gauge\(\s*"(\w+)"', text))
    said = set(re.findall(r"`flexrelay_(\w+?)(?:_total)?`", (ROOT / "docs" / "operations.md").read_text()))
    assert said == made


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    rooms = [ROOT / "middleware" / "flexrelay" / "ingest", ROOT / "adapters"]
    source = "".join(path.read_text() for room in rooms for path in sorted(room.rglob("*.py")))
    reasons = set(re.findall(r'(?:Refusal|DecodeError|Inconsistent|InvalidRegisters)\(\s*"(\w+)"', source))
    assert len(reasons) > 20
    text = (ROOT / "docs" / "howto" / "add-a-device.md").read_text()
    missing = sorted(reason for reason in reasons if f"`{reason}`" not in text)
    assert not missing, f"add-a-device.md does not say what to do about {', '.join(missing)}"


def test_every_benchmark_stands_in_the_table() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    missing = [name for name in {**BENCHES, **LONG} if f"| `{name}` |" not in text]
    assert not missing, f"docs/benchmarks.md has no row for {', '.join(missing)}"


def test_no_page_names_a_place_on_one_machine() -> None:
    for page in PAGES:
        assert not re.search(r"/(work|root|home)/\w", page.read_text()), page.name
