"""`flexrelay simulate`: devices that follow a profile, measure and obey, on any protocol that has a simulator."""

import asyncio
import json
import signal
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from flexrelay.cli.instant import parse_instant
from flexrelay.cli.output import BAD_INPUT, UNAVAILABLE, Json, err, explained, fail
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.quality.installed import SIMULATORS
from flexrelay_sdk.simulation import Plan, Profile, ProtocolSimulator, SimulatorFactory, make_devices

REPORT_S = 5.0


def simulate(
    protocol: Annotated[str, typer.Option(help="As `flexrelay adapter list` names it.")],
    profile: Annotated[Path, typer.Option(metavar="FILE", help="What they follow: CSV or JSON.")],
    devices: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 10,
    seed: Annotated[str, typer.Option(help="The same seed, the same devices and readings.")] = "flexrelay",
    every: Annotated[float, typer.Option(min=0.01, help="Market seconds between two readings of a device.")] = 10.0,
    rate: Annotated[int, typer.Option(min=1, max=100_000, help="Market seconds a second.")] = 1,
    start: Annotated[str, typer.Option(help="Market time at the start (ISO 8601); now without.")] = "",
    lasts: Annotated[float, typer.Option("--for", min=0, help="Seconds until it ends; 0: until Ctrl-C.")] = 0.0,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="Where they send, as TOML.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One of those settings, e.g. port=1884.")
    ] = None,
    json_: Json = False,
) -> None:
    """Simulate meters, PV inverters, batteries, EV chargers and heat pumps; with --json a line of counters each 5 s."""
    with explained(json_):
        section = _section(to, setting or [], json_)
        make = _factory(protocol, json_)
        now = wall_ms()
        try:
            start_ms = parse_instant(start) if start else now
            made = make_devices(Profile.read(profile), devices, seed, start_ms)
            plan = Plan(start_ms, now, every, rate)
            simulator = make(section, to.parent if to is not None else Path(), made, plan, seed)
        except ValueError as error:
            fail(str(error), BAD_INPUT, json_)
        try:
            asyncio.run(_run(simulator, lasts, lambda: _tell(simulator, json_)))
        except (ConnectionError, ValueError) as error:
            fail(str(error), UNAVAILABLE, json_)


async def _run(simulator: ProtocolSimulator, lasts_s: float, tell: Callable[[], None]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    ends = loop.time() + lasts_s if lasts_s else float("inf")
    running = asyncio.create_task(simulator.run(), name="simulation")
    stopping = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set() and loop.time() < ends and not running.done():
            pause_s = min(REPORT_S, ends - loop.time())
            await asyncio.wait({running, stopping}, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            tell()
        if running.done():
            running.result()
    finally:
        for task in (running, stopping):
            task.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)


def _tell(simulator: ProtocolSimulator, as_json: bool) -> None:
    stats = simulator.stats
    if as_json:
        counters = {name: getattr(stats, name) for name in ("sent", "confirmed", "commands", "reconnects")}
        sys.stdout.write(json.dumps(counters) + "\n")
        sys.stdout.flush()
    else:
        err.print(
            f"{stats.sent:,} readings sent, {stats.confirmed:,} confirmed, {stats.commands:,} commands answered, "
            f"{stats.reconnects:,} reconnects",
            markup=False,
        )


def _factory(protocol: str, as_json: bool) -> SimulatorFactory:
    points = {point.name: point for point in entry_points(group=SIMULATORS)}
    if protocol not in points:
        known = ", ".join(sorted(points)) or "none"
        fail(f"--protocol {protocol}: no simulator of that name is installed; there are {known}", BAD_INPUT, as_json)
    try:
        factory: SimulatorFactory = points[protocol].load()
    except ImportError as error:
        fail(f"the simulator of {protocol} needs a package that is not installed: {error}", BAD_INPUT, as_json)
    return factory


def _section(file: Path | None, settings: list[str], as_json: bool) -> dict[str, Any]:
    section: dict[str, Any] = {}
    if file is not None:
        try:
            section = tomllib.loads(file.read_text())
        except tomllib.TOMLDecodeError as error:
            fail(f"{file}: {error}", BAD_INPUT, as_json)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            fail(f"--set {setting}: KEY=VALUE", BAD_INPUT, as_json)
        try:
            section[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            section[key] = value  # a text without quotes
    return section
