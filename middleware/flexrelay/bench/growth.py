"""Whether anything grows with time: ten minutes of readings through journal, twin and windows in one process.

The resident memory at the end is compared with that at half time, when the databases' page caches have filled. The
files grow, as they should. `FLEXRELAY_GROWTH_S` changes the length.
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from flexrelay.bench import Result, in_process
from flexrelay.bench.ingest import NETWORK, START, _Columns, _did, _frame
from flexrelay.ingest import Enrolment, Ingest, RegisterChecks, Registry
from flexrelay.journal import SqliteJournal
from flexrelay.journal.consumer import follow
from flexrelay.store import Store
from flexrelay.twin import TWIN, Twin, TwinHistory
from flexrelay.windows import WINDOWS, Calendar, Vault, Windows
from flexrelay_schemas.entities import DeviceInfo
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.keys import multikey

DEVICES: Final = 1_000
ROUND_S: Final = 1.0
"""Every device sends once a round; a round is one minute of market time."""
MINUTE_MS: Final = 60_000


def run() -> list[Result]:
    """memory_growth: MB that the process grew by in the second half of the run, beside its size."""
    seconds = float(os.environ.get("FLEXRELAY_GROWTH_S", "600"))
    early, late, readings = map(float, in_process("flexrelay.bench.growth", str(seconds)).split()[-3:])
    against = f"MB after half of {seconds:.0f} s; {readings:.0f} readings in all"
    return [
        {
            "name": "memory_growth",
            "value": late - early,
            "unit": "MB",
            "ratio": (late - early) / early,
            "against": against,
        }
    ]


def _resident_mb() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def _measure(folder: Path, seconds: float) -> tuple[float, float, int]:
    """(MB after half, MB at the end, readings)."""
    registry = Registry(NETWORK, "bench")
    key = ec.generate_private_key(ec.SECP256R1())
    dids = [_did(number) for number in range(DEVICES)]
    for did in dids:
        registry.apply("identity.registered", {"did": did, "key": multikey(key.public_key()), "version": 1})
        registry.enrol(Enrolment(did, unsigned=True))
    market = START // 86_400_000 * 86_400_000
    days = [
        CalendarDay(date=f"2023-11-{15 + n:02d}", start=market + n * 86_400_000, isps=96, isp_seconds=900, working=True)
        for n in range(2)
    ]
    now = market
    sent = 0
    async with (
        SqliteJournal(folder / "journal.db") as journal,
        Store(folder / "store.db", [TWIN, WINDOWS]) as store,
        asyncio.TaskGroup() as group,
    ):
        twin = await Twin.open(store, lambda did: DeviceInfo(did, "meter"))
        with Vault(folder / "vault.db") as vault, TwinHistory(twin, store.path) as history:
            windows = await Windows.open(store, vault, Calendar(days), lambda did, at: True, MINUTE_MS)
            ingest = Ingest(registry, journal, RegisterChecks(history, journal.traces), lambda: now)
            followers = [group.create_task(follow(journal, consumer)) for consumer in (twin, windows)]
            begin = time.monotonic()
            early = 0.0
            while (elapsed := time.monotonic() - begin) < seconds:
                now += MINUTE_MS
                sent += 1
                payload = b"%d,%d,%d,%d" % (now, sent, sent * 7, sent)
                await ingest.put([_frame(did, payload) for did in dids], _Columns())
                if sent % 15 == 0:
                    await windows.close(now)
                    await windows.anchor(now)
                if not early and elapsed > seconds / 2:
                    early = _resident_mb()
                await asyncio.sleep(max(0.0, begin + sent * ROUND_S - time.monotonic()))
            late = _resident_mb()
            await ingest.close()
            for follower in followers:
                follower.cancel()
    return early, late, sent * DEVICES


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as place:
        print(*asyncio.run(_measure(Path(place), float(sys.argv[1]))))
