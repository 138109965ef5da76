"""`flexrelay init`: found a network in a data folder."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from flexrelay.cli.folder import in_use
from flexrelay.cli.output import Json, err, explained, out, show
from flexrelay.commissioning import CommissioningError, NetworkPlan, found_network
from flexrelay.config import load
from flexrelay.founding import MarketClock
from flexrelay.ledger.embedded import LedgerLocked
from flexrelay_sdk.clock import wall_ms


def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder, or one to go on with.")],
    network: Annotated[str, typer.Option(help="The network's name; part of every DID.")],
    org: Annotated[list[str], typer.Option(help="An organisation; the first one keeps the operator's key.")],
    zone: Annotated[str, typer.Option(help="IANA time zone of the market's days.")] = "Europe/Berlin",
    holidays: Annotated[str, typer.Option(help="Public holidays in the calendar: de, or none.")] = "",
    simulation: Annotated[bool, typer.Option("--simulation", help="Market time may differ from wall time.")] = False,
    market_start: Annotated[str, typer.Option(metavar="ISO", help="Market time at the founding (simulation).")] = "",
    rate: Annotated[int, typer.Option(min=1, max=1_000_000, help="Market seconds a second (simulation).")] = 1,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="For /healthz, /readyz, /metrics.")] = 9464,
    profile: Annotated[
        list[str] | None,
        typer.Option(metavar="ORG=FILE", help="A connection profile for each --org: the ledger is Fabric."),
    ] = None,
    json_: Json = False,
) -> None:
    """Found a network on the embedded ledger or on Fabric, or go on with one: keys, genesis, calendar, products."""
    with explained(json_):
        clock = _clock(simulation, market_start, rate)
        plan = NetworkPlan(network, tuple(org), zone, holidays, clock, http_port, _profiles(profile or []))
        try:
            done = asyncio.run(found_network(folder, plan, lambda text: err.print(f"  … {text}", markup=False)))
        except LedgerLocked as error:
            raise in_use(folder, load(folder), error) from None

    def render() -> None:
        out.print(f"network {network} in {folder}: {', '.join(org)}", markup=False, soft_wrap=True)
        if not done["operated_here"]:
            out.print(f"the operator {done['operator']} is not of this folder", markup=False, soft_wrap=True)
            out.print(f"next: flexrelay gateway card {folder} …, which the operator registers", markup=False)
            return
        out.print(
            f"operator {done['operator']}, its key is in {folder / org[0] / 'keys'}", markup=False, soft_wrap=True
        )
        out.print(
            f"calendar to {done['calendar_until']} ({zone}); products {', '.join(done['products'])}", markup=False
        )
        out.print(f"next: flexrelay actor add {folder} …, flexrelay run {folder}", markup=False, soft_wrap=True)

    show(done, json_, render)


def _profiles(given: list[str]) -> dict[str, Path]:
    """ORG=FILE, each organisation once; absolute paths."""
    found: dict[str, Path] = {}
    for text in given:
        org, sign, path = text.partition("=")
        if not sign or not org or not path:
            raise CommissioningError(f"--profile {text}: write ORG=FILE")
        if org in found:
            raise CommissioningError(f"--profile: {org} stands twice")
        found[org] = Path(path).absolute()
    return found


def _clock(simulation: bool, market_start: str, rate: int) -> MarketClock | None:
    """None where market time is wall time."""
    if not simulation:
        if market_start or rate != 1:
            raise CommissioningError("market time differs from wall time only with --simulation")
        return None
    now = wall_ms()
    start = now
    if market_start:
        try:
            moment = datetime.fromisoformat(market_start)
        except ValueError:
            raise CommissioningError(f"--market-start {market_start!r} is no ISO 8601 time") from None
        start = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    return MarketClock(wall_ms=now, market_ms=start, rate_num=rate, rate_den=1)
