"""From frames to the twin, without a protocol: ingest, twin, memory of registered devices, start with a backlog.

Device keys here are generated for the run; files lie in a temporary folder.
"""

import asyncio
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from flexrelay.bench import Result, in_process
from flexrelay.ingest import Enrolment, Ingest, NativeCodec, NoHistory, RegisterChecks, Registry
from flexrelay.journal import Entry, SqliteJournal
from flexrelay.journal.consumer import catch_up
from flexrelay.store import Store
from flexrelay.twin import TWIN, Twin, TwinHistory
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.encoding import b64u, multibase
from flexrelay_schemas.entities import DeviceInfo
from flexrelay_schemas.keys import multikey
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.reading import Reading, SignedReading
from flexrelay_sdk import Codec, Decoded, Frame, Outcome

NETWORK: Final = "bench"
START: Final = 1_700_000_000_000
READINGS: Final = 200_000
SIGNED: Final = 10_000
BATCH: Final = 2_000
DEVICES: Final = 1_000
REGISTERED: Final = 100_000
BACKLOG: Final = 1_000_000


def run() -> list[Result]:
    """ingest (unsigned, signed), twin, memory_devices, startup_backlog."""
    with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
        results = asyncio.run(_rates(Path(folder)))
    with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
        asyncio.run(_fill(Path(folder), BACKLOG))
        ready = float(_in_process("startup", folder))
    memory = float(_in_process("memory", str(REGISTERED)))
    results.append(_result("memory_devices", memory, "MB"))
    results.append(_result("startup_backlog", ready, "s"))
    return results


class _Columns:
    """An unsigned payload "instant,seq,import,export": what is measured is the path, not a parser."""

    def decode(self, frame: Frame) -> Decoded:
        observed_at, seq, imported, exported = map(int, frame.payload.split(b","))
        return Decoded((Measurement("", observed_at, {"import_j": imported, "export_j": exported}, seq),))


def _did(number: int) -> str:
    multihash = b"\x12\x20" + hashlib.sha256(b"%d" % number).digest()
    return f"did:flexrelay:{NETWORK}:{multibase(multihash)}"


def _frame(did: str, payload: bytes) -> Frame:
    scid = did.rpartition(":")[2]
    return Frame("bench", scid, payload, START, f"bench/{scid}")


async def _rates(folder: Path) -> list[Result]:
    dids = [_did(number) for number in range(DEVICES)]
    key = ec.generate_private_key(ec.SECP256R1())
    registry = Registry(NETWORK, "bench")
    for did in dids:
        registry.apply("identity.registered", {"did": did, "key": multikey(key.public_key()), "version": 1})
        registry.enrol(Enrolment(did, unsigned=True))
    rounds = READINGS // DEVICES
    plain = [
        _frame(did, b"%d,%d,%d,%d" % (START + number, number, number * 7, number))
        for number in range(rounds)
        for did in dids
    ]
    signed = [_signed(did, key, START + rounds + number) for number in range(SIGNED // DEVICES) for did in dids]
    async with SqliteJournal(folder / "journal.db") as journal:
        checks = RegisterChecks(NoHistory(), journal.traces)
        ingest = Ingest(registry, journal, checks, lambda: START + 1000)
        unsigned_s = await _put(ingest, plain, _Columns())
        signed_s = await _put(ingest, signed, NativeCodec())
        await ingest.close()
        async with Store(folder / "twin.db", [TWIN]) as store:
            twin = await Twin.open(store, lambda did: DeviceInfo(did, "meter"))
            begin = time.process_time()
            count = await catch_up(journal, twin)
            twin_s = time.process_time() - begin
    return [
        _result("ingest", READINGS / unsigned_s, "readings/CPU-s"),
        _result("ingest_signed", len(signed) / signed_s, "readings/CPU-s"),
        _result("twin", count / twin_s, "readings/CPU-s"),
    ]


def _signed(did: str, key: ec.EllipticCurvePrivateKey, observed_at: int) -> Frame:
    registers = {"import_j": observed_at, "export_j": observed_at}
    seq = observed_at - START
    reading = Reading(did=did, key_version=1, network=NETWORK, observed_at=observed_at, registers=registers, seq=seq)
    r, s = decode_dss_signature(key.sign(reading.message(), ec.ECDSA(hashes.SHA256())))
    signature = b64u(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    return _frame(did, canonical(SignedReading(reading=reading, signature=signature).model_dump()))


async def _put(ingest: Ingest, frames: Sequence[Frame], codec: Codec) -> float:
    """CPU seconds until all frames have their receipts."""
    begin = time.process_time()
    for offset in range(0, len(frames), BATCH):
        receipts = await ingest.put(frames[offset : offset + BATCH], codec)
        if any(receipt.outcome is not Outcome.STORED for receipt in receipts):
            raise AssertionError(f"not everything was stored: {set(ingest.outcomes)}")
    return time.process_time() - begin


async def _fill(folder: Path, count: int) -> None:
    """A journal of `count` entries that no consumer has seen."""
    dids = [_did(number) for number in range(DEVICES)]
    payload = bytes(200)
    async with SqliteJournal(folder / "journal.db") as journal:
        for offset in range(0, count, BATCH):
            await journal.append(
                [
                    Entry(
                        0,
                        0,
                        dids[index % DEVICES],
                        "bench",
                        "sender",
                        "bench/sender",
                        START,
                        False,
                        payload,
                        (Measurement("", START + index, {"import_j": index, "export_j": 0}, index // DEVICES),),
                    )
                    for index in range(offset, min(offset + BATCH, count))
                ]
            )
    async with Store(folder / "twin.db", [TWIN]):
        pass


async def _startup(folder: Path) -> float:
    """Seconds from opening the files until frames can be taken."""
    begin = time.monotonic()
    async with SqliteJournal(folder / "journal.db") as journal, Store(folder / "twin.db", [TWIN]) as store:
        twin = await Twin.open(store, lambda did: None)
        with TwinHistory(twin, store.path) as history:
            checks = RegisterChecks(history, journal.traces)
            if checks.prime() != BACKLOG:
                raise AssertionError("the backlog is not there")
            return time.monotonic() - begin


def _memory(count: int) -> float:
    """Resident MB of this process with `count` registered devices of which each has sent readings."""
    key = multikey(ec.generate_private_key(ec.SECP256R1()).public_key())
    registry = Registry(NETWORK, "bench")
    checks = RegisterChecks(NoHistory(), lambda after: ())
    for number in range(count):
        did = _did(number)
        registry.apply("identity.registered", {"did": did, "key": key[:-8] + f"{number:08d}", "version": 1})
        registry.enrol(Enrolment(did, orgs=("bench",)))
        for index in range(8):
            checks.admit(did, START + number + index, index, b"\x03\x00" + (number + index).to_bytes(8, "little") * 2)
        checks.commit(number)
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _in_process(what: str, argument: str) -> str:
    return in_process("flexrelay.bench.ingest", what, argument).split()[-1]


def _result(name: str, value: float, unit: str) -> Result:
    return {"name": name, "value": value, "unit": unit, "ratio": 0.0, "against": ""}


if __name__ == "__main__":
    if sys.argv[1] == "startup":
        print(asyncio.run(_startup(Path(sys.argv[2]))))
    else:
        print(_memory(int(sys.argv[2])))
