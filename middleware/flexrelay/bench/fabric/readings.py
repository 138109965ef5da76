"""Readings anchored on Fabric, everything running: ingest, journal, twin, windows, outbox, relay, client, network.

Time runs from the first frame to the block that holds the last anchor. Afterwards the anchors on the ledger must count
every reading as a leaf, and a sample of proofs must lead to their roots.
"""

import asyncio
import os
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec

from flexrelay.bench import Result
from flexrelay.bench.fabric import usage
from flexrelay.bench.fabric.ground import ORG
from flexrelay.bench.fabric.site import NETWORK, Site, founded
from flexrelay.bench.ingest import START, _Columns, _did, _frame, _signed
from flexrelay.collector import settle
from flexrelay.ingest import Enrolment, Ingest, NativeCodec, RegisterChecks, Registry
from flexrelay.journal import SqliteJournal
from flexrelay.journal.consumer import follow
from flexrelay.outbox import OUTBOX, CommittedIntent, Outbox
from flexrelay.relay import Relay
from flexrelay.store import Store
from flexrelay.twin import TWIN, Twin, TwinHistory
from flexrelay.windows import WINDOWS, Anchoring, Calendar, Prover, Vault, Windows, check_proof
from flexrelay_schemas.entities import DeviceInfo
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.keys import multikey
from flexrelay_sdk import Codec, Frame, Outcome
from flexrelay_sdk.clock import wall_ms

DEVICES: Final = 1_000
ISPS: Final = {"unsigned": 6, "signed": 2}
"""Market intervals of a run; each has 15 readings of every device, and is one anchor."""
_MINUTES: Final = 15
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000
_SAMPLE: Final = 50


def run() -> list[Result]:
    """fabric_readings_anchored (unsigned) and fabric_readings_anchored_signed: readings/s of this machine now, and
    readings per CPU-second of all processes together, the network's among them."""
    return asyncio.run(_both())


async def _both() -> list[Result]:
    found: list[Result] = []
    async with founded() as site:
        for kind, suffix in (("unsigned", ""), ("signed", "_signed")):
            with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
                rate, per_cpu, own, each = await _measure(site, Path(folder), kind)
            text = f"{each} readings per ledger transaction; {os.cpu_count()} cores that others use too"
            name = f"fabric_readings_anchored{suffix}"
            found.append({"name": name, "value": rate, "unit": "readings/s", "ratio": 0.0, "against": text})
            text = f"of all processes together; {own:.0%} of it is the gateway's, which is one process"
            found.append(
                {"name": f"{name}_cpu", "value": per_cpu, "unit": "readings/CPU-s", "ratio": 0.0, "against": text}
            )
    return found


async def _measure(site: Site, folder: Path, kind: str) -> tuple[float, float, float, int]:
    """(readings/s, readings per CPU-second of everything, this process' share of that, readings an anchor)."""
    key = ec.generate_private_key(ec.SECP256R1())
    dids = [_did(number) for number in range(DEVICES)]
    registry = Registry(NETWORK, "bench")
    for did in dids:
        registry.apply("identity.registered", {"did": did, "key": multikey(key.public_key()), "version": 1})
        registry.enrol(Enrolment(did, unsigned=True))
    # A day of its own for each kind: an anchor's id must not be taken on the ledger.
    day = (START // _DAY_MS + (1 if kind == "unsigned" else 11)) * _DAY_MS
    isps = [
        [_frames(kind, dids, key, day + (isp * _MINUTES + minute + 1) * _MINUTE_MS) for minute in range(_MINUTES)]
        for isp in range(ISPS[kind])
    ]
    codec: Codec = _Columns() if kind == "unsigned" else NativeCodec()
    total = len(isps) * _MINUTES * DEVICES
    now = day
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(SqliteJournal(folder / "journal.db"))
        store = await stack.enter_async_context(Store(folder / "store.db", [OUTBOX, TWIN, WINDOWS]))
        twin = await Twin.open(store, lambda did: DeviceInfo(did, "meter"))
        vault = stack.enter_context(Vault(folder / "vault.db"))
        history = stack.enter_context(TwinHistory(twin, store.path))
        windows = await Windows.open(store, vault, Calendar(_days(day)), lambda did, at: True, _MINUTE_MS)
        outbox = Outbox(store, "bench")
        await stack.enter_async_context(Relay(site.ledger, outbox))
        anchoring = Anchoring(windows, outbox, site.signer, NETWORK, lambda: now, wall_ms, _MINUTES * _MINUTE_MS)
        ingest = Ingest(registry, journal, RegisterChecks(history, journal.traces), lambda: now)
        followers = [asyncio.create_task(follow(journal, consumer)) for consumer in (twin, windows)]
        settle()  # as a running gateway does
        before, own = _cpu(site), time.process_time()
        began = time.perf_counter()
        entries = []

        async def put(minutes: list[list[Frame]]) -> None:
            for receipts in await asyncio.gather(*(ingest.put(frames, codec) for frames in minutes)):
                if any(receipt.outcome is not Outcome.STORED for receipt in receipts):
                    raise RuntimeError(f"not everything was stored: {dict(ingest.outcomes)}")

        async def anchor(taken: int) -> None:
            while windows.position < taken:  # noqa: ASYNC110 (the consumer has no other sign)
                await asyncio.sleep(0.005)
            entries.extend(await anchoring.step())

        for number, minutes in enumerate(isps):  # one comes in while the one before is anchored
            now += _MINUTES * _MINUTE_MS  # at full load there is always a backlog
            await asyncio.gather(put(minutes), anchor(number * _MINUTES * DEVICES))
        now += 2 * _MINUTE_MS
        await anchor(total)
        for entry in entries:
            outcome = await outbox.wait(entry)
            if not isinstance(outcome, CommittedIntent):
                raise RuntimeError(f"an anchor was not committed: {outcome}")
        seconds, cpu, own = time.perf_counter() - began, _cpu(site) - before, time.process_time() - own
        for follower in followers:
            follower.cancel()
        await asyncio.gather(*followers, return_exceptions=True)
        await ingest.close()
        await _check(site, Prover(store, journal, vault, ORG), dids, day, total)
    return total / seconds, total / cpu, own / cpu, total // len(entries)


def _frames(kind: str, dids: list[str], key: ec.EllipticCurvePrivateKey, at: int) -> list[Frame]:
    if kind == "signed":
        return [_signed(did, key, at) for did in dids]
    number = (at - START) // _MINUTE_MS
    return [_frame(did, b"%d,%d,%d,%d" % (at, number, number * 7, number)) for did in dids]


def _days(day: int) -> list[CalendarDay]:
    def date(start: int) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(start / 1000))

    return [
        CalendarDay(date=date(start), start=start, isps=96, isp_seconds=900, working=True)
        for start in (day - _DAY_MS, day, day + _DAY_MS)
    ]


def _cpu(site: Site) -> float:
    return sum(usage.cpu_of(site.ground).values()) + usage.cpu_s([os.getpid()])


async def _check(site: Site, prover: Prover, dids: list[str], day: int, total: int) -> None:
    """Every reading is a leaf under an anchor of the ledger, and proofs lead there."""
    records: list[dict[str, Any]] = await site.ledger.evaluate("evidence.list", {"org": ORG})
    anchors = {record["anchor_id"]: record for record in records if day <= record["first_ms"] < day + _DAY_MS}
    leaves = sum(record["leaves"] for record in anchors.values())
    if leaves != total:
        raise RuntimeError(f"{total} readings, but {leaves} leaves under the anchors on the ledger")
    for number in range(_SAMPLE):
        proof = await prover.proof(dids[number * 7 % DEVICES], day + (number % _MINUTES + 1) * _MINUTE_MS)
        record = anchors[proof.anchor_id]
        check_proof(proof, record["root"], record["windows"])
