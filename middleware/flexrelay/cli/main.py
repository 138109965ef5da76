"""The `flexrelay` program: its commands, by noun."""

import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from flexrelay.cli import actor, adapter, custody, deadletter, device, gateway, ledger, market, network, opcua
from flexrelay.cli.bench import bench
from flexrelay.cli.demo import demo
from flexrelay.cli.init import init
from flexrelay.cli.output import INTERRUPTED, UNAVAILABLE
from flexrelay.cli.run import run
from flexrelay.cli.simulate import simulate
from flexrelay.logs import log_to_stderr

app = typer.Typer(
    name="flexrelay",
    help="Readings from devices, custody of them, and energy-flexibility markets on a permissioned ledger.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
)
app.command()(init)
app.command()(run)
app.command()(demo)
app.command()(bench)
app.command()(simulate)
for name, noun in (
    ("actor", actor),
    ("gateway", gateway),
    ("device", device),
    ("adapter", adapter),
    ("market", market),
    ("ledger", ledger),
    ("network", network),
    ("custody", custody),
    ("deadletter", deadletter),
    ("opcua", opcua),
):
    app.add_typer(noun.app, name=name)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flexrelay {version('flexrelay')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    log_to_stderr(logging.WARNING)


def main() -> None:
    try:
        app()
    except KeyboardInterrupt:  # before the command itself has begun
        sys.exit(INTERRUPTED)
    except OSError as error:  # what a command meets is explained there: here the answer itself cannot be written
        sys.stderr.write(f"flexrelay: {error}\n")
        sys.exit(UNAVAILABLE)
