"""A whole site in one process, made to be killed: what `flexrelay run` runs, plus payments through the outbox.

Everything is the real thing; wrappers write down, in memory shared with the test, which point the process is at, and
kill it there when told to. Points lie before and after what must be whole: every commit, every block, every submission.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexrelay.app import Site, open_site
from flexrelay.config import load
from flexrelay.journal.sqlite import SqliteJournal
from flexrelay.ledger.embedded.blockfile import BlockFile
from flexrelay.ledger.embedded.engine import Engine
from flexrelay.ledger.embedded.ledger import Connection
from flexrelay.ledger.embedded.state import State
from flexrelay.outbox import Outbox
from flexrelay.projections import Projections
from flexrelay.twin import Twin
from flexrelay.windows import Vault, Windows
from flexrelay.windows import windows as windows_module
from support.gateway import Marks, marked
from support.site import operator_desk

PLACES: tuple[tuple[Any, str, str, str], ...] = (
    (SqliteJournal, "_commit", "journal: commit running", "journal: committed"),
    (Twin, "consume", "twin: consuming", "twin: consumed"),
    (Vault, "_write", "vault: writing", "vault: written"),
    (Windows, "consume", "windows: leaves being made", "windows: leaves stored"),
    (windows_module, "_close_window", "windows: a window being closed", "windows: closed, not committed"),
    (windows_module, "_anchor", "windows: an anchor being made", "windows: anchor made, not committed"),
    (Windows, "hand_over", "windows: anchor committed, not handed over", "windows: handed over"),
    (Outbox, "add_in", "outbox: being added", "outbox: added, not committed"),
    (Engine, "simulate", "ledger: executing", "ledger: executed"),
    (Outbox, "record_prepared", "outbox: prepared, not kept", "outbox: envelope kept"),
    (Connection, "submit", "relay: submitting", "relay: submitted"),
    (BlockFile, "append", "ledger: block being written", "ledger: block on disk"),
    (State, "apply", "ledger: block being applied", "ledger: block applied"),
    (Outbox, "conclude", "outbox: end not recorded", "outbox: end recorded"),
    (Projections, "_store_block", "projections: block being stored", "projections: stored, not committed"),
)
STARTING, RUNNING = "starting", "running"
POINTS = (STARTING, RUNNING, *(point for _, _, *points in PLACES for point in points))

ORGS = ("dso", "agg-a")
SHORT_MS = 150
"""Lifetime of every fifth payment: a kill lets it expire while an envelope of it may be on its way."""


def amount_of(number: int) -> int:
    """µ€ of a payment: no two sums of different payments look alike for long."""
    return 1_000_000 + number * number


def payment_id(number: int) -> str:
    return f"payment-{number}"


@dataclass(frozen=True)
class SiteOrders:
    """What the process is to do. `kill_at` a point after `skip` passes, `delay_us` later; "" runs on."""

    folder: Path
    kill_at: str = ""
    skip: int = 0
    delay_us: int = 0

    def main(self) -> None:
        logging.basicConfig(filename=self.folder / "site.log", level=logging.WARNING, force=True)
        marks = Marks(self.folder / "marks", self, POINTS)
        marks.at(STARTING)
        for owner, name, before, after in PLACES:
            setattr(owner, name, marked(getattr(owner, name), marks, before, after))
        try:
            asyncio.run(_serve(self.folder, marks))
        except BaseException:
            logging.exception("the site ended by itself")
            raise
        os._exit(0)


async def _serve(folder: Path, marks: Marks) -> None:
    """Until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_site(folder, load(folder)) as site:
        marks.at(RUNNING)
        paying = asyncio.create_task(_pay(site, folder))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({paying, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if paying.done():
            paying.result()
            await stopping
        paying.cancel()


async def _pay(site: Site, folder: Path) -> None:
    """Payment after payment into the outbox, until the folder says that it is enough; those that the outbox has taken
    are noted. A start begins with the one that may have been taken and not noted."""
    gateway = site.gateways["dso"]
    desk = operator_desk(gateway)
    noted = folder / "payments"
    number = len(noted.read_text().splitlines()) if noted.exists() else 0
    with noted.open("a") as file:
        while not (folder / "enough").exists():
            args = {"account": f"actor:{desk.did}", "micro_eur": amount_of(number), "reference": payment_id(number)}
            lifetime_ms = SHORT_MS if number % 5 == 0 else 600_000
            await desk.send("accounts.fund", args, intent_id=payment_id(number), lifetime_ms=lifetime_ms)
            file.write(f"{number}\n")
            file.flush()
            number += 1
            await asyncio.sleep(0.02)
