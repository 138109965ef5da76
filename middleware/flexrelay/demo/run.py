"""`flexrelay demo`: opens the stage, tells the story, shows and writes what came of it."""

import asyncio
import logging
import secrets
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from flexrelay.demo import day_ahead, operation, settlement
from flexrelay.demo.barrier import StoryLate
from flexrelay.demo.cast import Progress, calendar
from flexrelay.demo.day_ahead import EVE
from flexrelay.demo.grid import copy_extract, load_grid
from flexrelay.demo.ledger import LedgerKind
from flexrelay.demo.lines import check_libraries
from flexrelay.demo.plots import Offer, TransformerDay
from flexrelay.demo.report import Report, compile_report, merit_order, transformer_day, write_pictures, write_report
from flexrelay.demo.stage import Stage, open_stage
from flexrelay.founding import MarketClock
from flexrelay_sdk.clock import wall_ms

log = logging.getLogger(__name__)

RATE = 1920
"""Market seconds a second: a day lasts 45 s."""
LEAD_S = 40.0
"""Wall-clock seconds from the founding to the first gate: for registrations and the history's readings."""
ATTEMPTS = 3
GATE_MS = 9 * 3_600_000


@dataclass(frozen=True, slots=True)
class Options:
    """`folder` must not exist; `seed` makes the devices' keys; `embedded_broker`: amqtt even where Mosquitto is;
    `fabric`: the version of a Fabric ledger."""

    folder: Path
    rate: int = RATE
    lead_s: float = LEAD_S
    seed: str = field(default_factory=lambda: secrets.token_hex(8))
    embedded_broker: bool = False
    ledger: LedgerKind = "embedded"
    fabric: str = "3.1"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the story ended with."""

    report: Report
    offers: list[Offer]
    need_w: int
    day: TransformerDay
    pictures: list[Path]
    attribution: str


def default_folder() -> Path:
    """A new folder below ./run, named after the time."""
    return Path("run") / datetime.now(UTC).strftime("demo-%Y%m%d-%H%M%S")


async def run(options: Options, progress: Progress, after: Callable[[Stage, Outcome], Awaitable[None]]) -> None:
    """Tell the story, then await `after` while everything still runs.

    On a machine that is too slow for the lead, it begins again with twice as much; the numbers are the same. Raises
    StoryStuck, also when the extras are not installed.
    """
    check_libraries()
    lead = options.lead_s
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await _once(options, lead, progress, after)
            return
        except StoryLate as late:
            if attempt == ATTEMPTS:
                raise
            log.warning("%s; again with twice the lead", late)
            progress(f"this machine needs more than {lead:.0f} s for the preparations: again with {2 * lead:.0f} s")
            lead *= 2
            await asyncio.to_thread(shutil.rmtree, options.folder)


async def _once(
    options: Options, lead_s: float, progress: Progress, after: Callable[[Stage, Outcome], Awaitable[None]]
) -> None:
    folder = options.folder
    folder.mkdir(parents=True)
    profiles = copy_extract(folder / "profiles")
    grid = load_grid(profiles)
    gate = next(day.start for day in calendar() if day.date == EVE) + GATE_MS

    def clock() -> MarketClock:
        return MarketClock(wall_ms(), gate - int(lead_s * 1000) * options.rate, options.rate, 1)

    async with open_stage(
        folder,
        grid,
        clock,
        options.seed,
        progress,
        embedded_broker=options.embedded_broker,
        ledger=options.ledger,
        fabric=options.fabric,
    ) as stage:
        devices = asyncio.create_task(stage.fleet.follow(), name="devices")
        try:
            told = await day_ahead.tell(stage.cast, grid.limit_w, progress)
            done = await operation.tell(stage.cast, told, progress)
            await asyncio.to_thread(shutil.rmtree, folder / "profiles")  # from here on: journals only
            settled = await settlement.tell(stage.cast, told, done, progress)
            progress("verifying the ledger from block 0")
            broker = f"{stage.broker.kind} on port {stage.broker.port}"
            report = await compile_report(stage.cast, folder, told, done, settled, broker, options.fabric)
            offers, need = merit_order(told)
            day = transformer_day(stage.cast, told, settled)
            pictures = write_pictures(folder, offers, need, day, grid.attribution)
            write_report(folder / "report.json", report)
            await after(stage, Outcome(report, offers, need, day, pictures, grid.attribution))
        finally:
            devices.cancel()
