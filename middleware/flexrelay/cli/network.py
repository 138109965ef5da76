"""`flexrelay network`: Fabric networks from one description file, as processes on this machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flexrelay.cli.output import BAD_INPUT, CHECK_FAILED, UNAVAILABLE, Json, err, explained, fail, out, show, table
from flexrelay.network import Binaries, Network, NetworkError, ProcessStatus, Spec, SpecError, ensure, load
from flexrelay.network.changes import Command

app = typer.Typer(help="Fabric networks: up, down, status, and changes while they run.", no_args_is_help=True)

SpecFile = Annotated[Path, typer.Option("--spec", metavar="FILE", help="The description of the network (TOML).")]
Place = Annotated[
    Path | None, typer.Option("--folder", metavar="D", help="The network's folder; run/<its name> without.")
]
Peer = Annotated[str, typer.Argument(metavar="PEER", help="A peer of the network, e.g. peer0.dso.")]

_IMAGE = "flexrelay-chaincode:latest"


@app.command()
def up(spec: SpecFile, folder: Place = None, json_: Json = False) -> None:
    """Bring the network up: programs, certificates, channels, contracts. Again goes on where it was left."""
    _bring(spec, folder, "up", json_)


@app.command()
def upgrade(spec: SpecFile, folder: Place = None, json_: Json = False) -> None:
    """Bring changed contracts (a new version, policy or collection, with the next sequence) and new ones to work."""
    _bring(spec, folder, "upgrade", json_)


@app.command("add-org")
def add_org(spec: SpecFile, folder: Place = None, json_: Json = False) -> None:
    """Add the organisations that the description has more: certificates, peers, their channels, their contracts."""
    _bring(spec, folder, "add-org", json_)


@app.command("add-peer")
def add_peer(spec: SpecFile, folder: Place = None, json_: Json = False) -> None:
    """Start the peers that the description has more, on their organisation's channels."""
    _bring(spec, folder, "add-peer", json_)


@app.command("add-channel")
def add_channel(spec: SpecFile, folder: Place = None, json_: Json = False) -> None:
    """Make the channels that the description has more, with the contracts that are on them."""
    _bring(spec, folder, "add-channel", json_)


@app.command()
def down(
    spec: SpecFile,
    folder: Place = None,
    purge: Annotated[bool, typer.Option("--purge", help="Remove ledgers, keys and everything else too.")] = False,
    json_: Json = False,
) -> None:
    """End the network's processes, and no others; without --purge `up` goes on with the same ledgers."""
    with _explained(json_):
        network = _network(spec, folder)
        ended = network.down(purge=purge)
        gone = f"{network.folder.root} is removed" if purge else f"its ledgers stay in {network.folder.root}"
        answer = {"folder": str(network.folder.root), "ended": ended, "purged": purge}
        show(answer, json_, lambda: out.print(f"{len(ended)} processes ended; {gone}", markup=False, soft_wrap=True))


@app.command()
def status(spec: SpecFile, folder: Place = None, json_: Json = False) -> None:
    """Every process with its pid, address, channels; exit 1 when one does not run, is not healthy or stays behind."""
    with _explained(json_):
        network = _network(spec, folder)
        good = _show(Network.opened(network.folder.root), json_)
    if not good:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def render(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="compose, or helm: values of deploy/fabric/chart.")],
    spec: SpecFile,
    folder: Place = None,
    image: Annotated[str, typer.Option(help="The image of the contracts (chaincode/package).")] = _IMAGE,
    json_: Json = False,
) -> None:
    """Make the same network for containers of the official images, instead of starting processes."""
    if target not in ("compose", "helm"):
        fail(f"{target}: compose or helm", BAD_INPUT, json_)
    with _explained(json_), _steps(json_) as (say, binaries):
        description = load(spec)
        network = Network(description, _place(description, folder), binaries(description), say)
        file = network.render("compose" if target == "compose" else "helm", image)
    root = network.folder.root
    start = f"docker compose -f {file} up -d" if target == "compose" else f"helm install … -f {file}, forward its ports"
    answer = {"folder": str(root), "file": str(file)}
    show(answer, json_, lambda: out.print(f"{file}\nnext: {start}, then flexrelay network join", markup=False))


@app.command()
def join(spec: SpecFile, folder: Place = None, json_: Json = False) -> None:
    """Bring channels and contracts up on containers that were rendered and run; their ports are on this loopback."""
    with _explained(json_), _steps(json_) as (say, binaries):
        description = load(spec)
        network = Network(description, _place(description, folder), binaries(description), say)
        network.join()
    answer = {"folder": str(network.folder.root), "profiles": str(network.folder.profiles)}
    show(answer, json_, lambda: out.print(f"up; profiles for gateways: {network.folder.profiles}", markup=False))


@app.command()
def backup(
    peer: Peer,
    spec: SpecFile,
    to: Annotated[Path, typer.Option(metavar="D", help="A new folder.")],
    folder: Place = None,
    json_: Json = False,
) -> None:
    """Write snapshots of a peer's channels; the peer goes on."""
    with _explained(json_), _steps(json_) as (say, binaries):
        network = _network(spec, folder, binaries)
        say(f"snapshots of {peer}")
        blocks = network.backup(peer, to)
    rows = list(blocks.items())
    answer = {"peer": peer, "folder": str(to), "blocks": blocks}
    show(answer, json_, lambda: table(f"{peer} in {to}", ("channel", "up to block"), rows))


@app.command()
def restore(
    peer: Peer,
    spec: SpecFile,
    source: Annotated[Path, typer.Option("--from", metavar="D", help="A folder that `backup` wrote.")],
    folder: Place = None,
    json_: Json = False,
) -> None:
    """Make a peer anew from a backup; what it had is put aside."""
    with _explained(json_), _steps(json_) as (say, binaries):
        network = _network(spec, folder, binaries)
        say(f"{peer} from {source}")
        aside = network.restore(peer, source)
    answer = {"peer": peer, "former_data": str(aside) if aside else None}
    kept = f"; its former data is in {aside}" if aside else ""
    show(answer, json_, lambda: out.print(f"{peer} is up from its backup{kept}", markup=False, soft_wrap=True))


def _bring(file: Path, folder: Path | None, command: Command, as_json: bool) -> None:
    with _explained(as_json):
        spec = load(file)
        for warning in spec.warnings():
            err.print(f"{file}: {warning}", style="yellow", markup=False, soft_wrap=True)
        with _steps(as_json) as (say, binaries):
            network = Network(spec, _place(spec, folder), binaries(spec), say)
            network.up(command)
        _show(network, as_json)
    if not as_json:
        err.print(f"profiles for gateways: {network.folder.profiles}", markup=False, soft_wrap=True)


def _network(file: Path, folder: Path | None, binaries: Callable[[Spec], Binaries] | None = None) -> Network:
    spec = load(file)
    return Network(spec, _place(spec, folder), binaries(spec) if binaries else None)


def _place(spec: Spec, folder: Path | None) -> Path:
    return folder or Path("run") / spec.name


def _state(item: ProcessStatus) -> str:
    if not item.healthy:
        return "down" if item.pid is None else "does not answer"
    return "up" if item.good else f"{item.behind} blocks behind"


def _show(network: Network, as_json: bool) -> bool:
    """Print the status; whether everything runs and keeps up."""
    found = network.status()
    good = all(process.good for process in found)
    answer: dict[str, Any] = {
        "network": network.spec.name,
        "fabric": network.spec.fabric,
        "folder": str(network.folder.root),
        "up": all(process.healthy for process in found),
        "profiles": [str(path) for path in sorted(network.folder.profiles.glob("*/*.toml"))],
        "processes": [asdict(process) for process in found],
    }
    rows = [
        (
            item.name,
            item.kind,
            "–" if item.pid is None else str(item.pid),
            item.address.rpartition(":")[2],
            item.operations.rpartition(":")[2],
            _state(item),
            ", ".join(f"{channel} {height}" for channel, height in sorted(item.heights.items())),
        )
        for item in found
    ]
    columns = ("process", "kind", "pid", "port", "operations", "is", "blocks")
    show(answer, as_json, lambda: table(f"{network.spec.name} in {network.folder.root}", columns, rows))
    return good


@contextmanager
def _steps(as_json: bool) -> Iterator[tuple[Callable[[str], None], Callable[[Spec], Binaries]]]:
    """(say what is done now, build Fabric's programs) with a display on standard error where that is a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=as_json or not err.is_terminal) as progress:
        task = progress.add_task("", total=None)
        said: list[str] = []

        def say(text: str) -> None:
            if not progress.disable:
                progress.update(task, description=text, total=None, completed=0)
            elif not as_json and text not in said[-1:]:
                err.print(f"  … {text}", markup=False)
            said.append(text)

        def building(what: str, done: int, total: int) -> None:
            if progress.disable:
                say(what)
            else:
                progress.update(task, description=what, completed=done, total=total or None)

        yield say, lambda spec: ensure(spec.fabric, building)


@contextmanager
def _explained(as_json: bool) -> Iterator[None]:
    with explained(as_json):
        try:
            yield
        except SpecError as error:
            fail(str(error), BAD_INPUT, as_json)
        except NetworkError as error:
            fail(str(error), UNAVAILABLE, as_json)
