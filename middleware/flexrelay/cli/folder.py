"""Opening a data folder for one command: the site to a level, the work in it, failures explained."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from flexrelay.app import Gateway, Level, Site, open_site
from flexrelay.cli.output import err, explained
from flexrelay.commissioning.actors import gateway_of
from flexrelay.config import Config, load
from flexrelay.journal import JournalLocked
from flexrelay.ledger.embedded import LedgerLocked
from flexrelay.ledger.port import LedgerUnavailable

T = TypeVar("T")

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A data folder, made by `flexrelay init` or `demo`.")]
Org = Annotated[str, typer.Option(help="The organisation whose gateway is meant; all of the folder without.")]


def on_site(folder: Path, level: Level, as_json: bool, work: Callable[[Site], Awaitable[T]]) -> T:
    """Open the folder to `level`, do the work, close it. Ends the command with a message when it cannot be.

    Level.LOOKING is for work that shows what the gateways have stored: after they have caught up with the ledger where
    no process runs them and the ledger answers, else as it stands.
    """

    async def run() -> T:
        config = load(folder)
        try:
            async with open_site(folder, config, max(level, Level.READING)) as site:
                return await work(site)
        except (LedgerLocked, JournalLocked, LedgerUnavailable) as error:
            if level > Level.LOOKING:
                raise in_use(folder, config, error) if isinstance(error, LedgerLocked) else error from None
            if isinstance(error, LedgerUnavailable):
                err.print(f"shown is what is stored, the ledger does not answer: {error}", markup=False)
        async with open_site(folder, config, Level.LOOKING) as site:
            return await work(site)

    with explained(as_json):
        return asyncio.run(run())


def gateways(site: Site, org: str) -> list[Gateway]:
    """The gateway of `org`, or all. Raises CommissioningError."""
    return [gateway_of(site, org)] if org else [site.gateways[name] for name in sorted(site.gateways)]


def in_use(folder: Path, config: Config, error: LedgerLocked) -> LedgerLocked:
    """Which process has the folder open, where the system tells."""
    holder = _holder(folder / config.ledger.folder / "LOCK")
    if holder is None:
        return error
    return LedgerLocked(
        f"{folder} is in use by process {holder}; one process at a time opens a data folder: stop it first"
    )


def bar() -> Progress:
    """A progress bar on standard error; it goes away when done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
    )


def _holder(lock: Path) -> int | None:
    """The process that holds a lock on the file (Linux)."""
    try:
        inode = lock.stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] != "->" and fields[5].rpartition(":")[2] == str(inode) and int(fields[4]) > 0:
                return int(fields[4])
    except (OSError, ValueError, IndexError):
        return None
    return None
