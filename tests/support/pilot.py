"""A data folder as users make it with the program, with readings of a signing and of an attested device in it."""

import asyncio
import json
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from typer.testing import CliRunner, Result

from flexrelay.app import Level, Site, open_site
from flexrelay.cli.main import app
from flexrelay.config import load
from flexrelay.identity.keyfile import sign_with
from flexrelay.ingest import NativeCodec
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.did import split_did
from flexrelay_schemas.encoding import b64u
from flexrelay_schemas.reading import Reading, SignedReading
from flexrelay_sdk import Frame, Outcome
from flexrelay_sdk.clock import wall_ms
from support.readings import PlainCodec

NETWORK = "pilot"
START = "2026-03-02T00:00:00Z"
START_MS = 1_772_409_600_000
READINGS = 16
ISP_MS = 900_000


def flexrelay(*arguments: object) -> Result:
    """Run a command in this process, whose signals stay as they are (only its main thread can change them)."""
    changeable = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    handlers = {number: signal.getsignal(number) for number in changeable}
    try:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def answer(*arguments: object) -> Any:
    """The JSON that a command that succeeds prints."""
    result = flexrelay(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def found(folder: Path) -> None:
    """A simulated network of two organisations, an hour of market time a second."""
    orgs = ("--org", "dso", "--org", "agg")
    clock = ("--simulation", "--market-start", START, "--rate", 3600)
    answer("init", folder, "--network", NETWORK, *orgs, *clock, "--http-port", 0)
    path, windows = folder / "flexrelay.toml", "[gateways.windows]\n"
    # a month goes by in twelve minutes: nothing is to be stale on a slow machine
    path.write_text(path.read_text().replace(windows, f"[gateways.ingest]\nstale_after_days = 390\n\n{windows}"))


def populate(folder: Path) -> dict[str, str]:
    """Actors, a signing meter and an attested PV inverter of agg; readings of four hours, anchored. DIDs by name."""
    answer("actor", "add", folder, "--org", "agg", "--label", "owner", "--role", "aggregator")
    device = ("device", "add", folder, "--org", "agg", "--controller", "owner")
    meter = answer(*device, "--name", "m1", "--kind", "meter")
    inverter = answer(*device, "--name", "pv1", "--kind", "pv", "--unsigned", "--credential", "mqtt:inverter-1")
    dids = {"m1": meter["did"], "pv1": inverter["did"]}
    asyncio.run(_fill(folder, dids, Path(meter["key_file"])))
    return dids


async def _fill(folder: Path, dids: dict[str, str], key_file: Path) -> None:
    async with open_site(folder, load(folder), Level.SERVING) as site:
        gateway = site.gateways["agg"]
        due_ms = site.clock.wall(START_MS + (READINGS + 2) * ISP_MS) - wall_ms()
        await asyncio.sleep(max(due_ms, 0) / 1000)
        frames = [signed_frame(dids["m1"], key_file, n) for n in range(1, READINGS + 1)]
        for receipt in await gateway.ingest.put(frames, NativeCodec()):
            assert receipt.outcome is Outcome.STORED, receipt
        plain = [_frame("inverter-1", {"t": START_MS + n * ISP_MS, "seq": n, "export_j": n}) for n in range(1, 9)]
        for receipt in await gateway.ingest.put(plain, PlainCodec()):
            assert receipt.outcome is Outcome.STORED, receipt
        await _anchored(site, READINGS + 8)


async def _anchored(site: Site, readings: int) -> None:
    gateway = site.gateways["agg"]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        await gateway.anchoring.step()
        counts = await gateway.windows.counts()
        on_ledger = await gateway.ledger.evaluate("evidence.list", {"org": "agg"})
        if counts["windows"] == readings and len(on_ledger) == counts["anchors"]:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"not anchored in time: {counts}")


def signed_frame(did: str, key_file: Path, number: int, *, registers: dict[str, int] | None = None) -> Frame:
    """The meter's reading at the end of ISP `number`, signed with the key of its file."""
    private: Any = serialization.load_pem_private_key(key_file.read_bytes(), None)
    reading = Reading(
        did=did,
        key_version=1,
        network=NETWORK,
        observed_at=START_MS + number * ISP_MS,
        registers=registers or {"import_j": 1000 * number, "export_j": 0},
        seq=number,
    )
    signature = b64u(sign_with(private, reading.message()))
    payload = canonical(SignedReading(reading=reading, signature=signature).model_dump())
    return Frame("mqtt", split_did(did)[1], payload, time.time_ns() // 1_000_000, f"pilot/{split_did(did)[1]}/readings")


def _frame(credential: str, content: dict[str, int]) -> Frame:
    payload = json.dumps(content).encode()
    return Frame("mqtt", credential, payload, time.time_ns() // 1_000_000, f"pilot/{credential}/readings")


def problems(result: Result) -> Sequence[str]:
    """What `custody verify --json` found."""
    return [text for gateway in json.loads(result.stdout)["gateways"] for text in gateway["problems"]]
