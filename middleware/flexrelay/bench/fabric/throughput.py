"""Small transactions beside Go's: throughput at 16, 64 and 128 in flight, CPU at 64, latency with one in flight.

Runs alternate (ours, Go, ours, Go) on one network; each figure is the median of the rounds' ratios.
"""

import asyncio
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

from flexrelay.bench import Result
from flexrelay.bench.fabric import gopeers, usage
from flexrelay.bench.fabric.ground import CHANNEL, ORG, OURS, THEIRS, compared
from flexrelay.bench.fabric.load import puts
from flexrelay.bench.fabric.site import founded
from flexrelay.ledger.fabric import Profile, load_profile
from flexrelay.network import Network

ROUNDS: Final = 3
COUNTS: Final = {1: 15, 16: 300, 64: 800, 128: 800}
"""Transactions of one run, by how many are in flight."""
_GO: Final = "official Go client and Go shim"
_STATUS: Final = f"{_GO}, CommitStatus"
_WARM: Final = 200


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one side. `cpu_s`: of every process of the network but the idle chaincode, and the client's."""

    rate: float
    median_ms: float
    cpu_ms: float
    """Of all processes, a transaction."""
    parts_ms: dict[str, float]
    """The same by process."""


class Sides:
    """Starts the two clients against their chaincodes."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._go = gopeers.build() / "client"
        self._number = 0

    def ours(self, in_flight: int, count: int) -> Run:
        profile = self._network.profile(ORG, CHANNEL)
        command = [sys.executable, "-m", "flexrelay.bench.fabric.load", str(profile)]
        return self._run(OURS, [*command, "--count", str(count), "--in-flight", str(in_flight)], count)

    def go(self, in_flight: int, count: int, follow: str) -> Run:
        profile: Profile = load_profile(self._network.profile(ORG, CHANNEL))
        peer = profile.peers[0]
        command = [
            *(str(self._go), "-endpoint", peer.endpoint, "-server-name", peer.server_name, "-tls-ca", peer.tls_ca),
            *("-msp", profile.org, "-certificate", profile.identity.certificate, "-key", profile.identity.key),
            *("-channel", profile.channel, "-chaincode", THEIRS, "-follow", follow),
            *("-count", str(count), "-in-flight", str(in_flight)),
        ]
        return self._run(THEIRS, command, count)

    def _run(self, chaincode: str, command: list[str], count: int) -> Run:
        self._number += 1
        prefix = ["--prefix" if chaincode == OURS else "-prefix", f"r{self._number}"]
        before = usage.cpu_of(self._network)
        done = subprocess.run([*command, *prefix], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:4])} failed: {done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        if found["invalid"]:
            raise RuntimeError(f"{found['invalid']} puts of {count} were judged invalid")
        parts = usage.used(before, usage.cpu_of(self._network))
        parts = {name.partition("_")[0]: seconds * 1000 / count for name, seconds in parts.items()}
        parts = {name: ms for name, ms in parts.items() if name not in (OURS, THEIRS)} | {"chaincode": parts[chaincode]}
        parts["client"] = found["cpu_s"] * 1000 / count
        return Run(count / found["seconds"], found["latency_ms"]["median"], sum(parts.values()), parts)


def run() -> list[Result]:
    """fabric_throughput_16|64|128, fabric_cpu_64 (also with Go on block events, and by process), fabric_latency_1,
    and what signed intents through the contract cost beside the plain put."""
    with compared() as network:
        sides = Sides(network)
        sides.ours(64, _WARM)
        sides.go(64, _WARM, "status")
        results = [_throughput(sides, in_flight) for in_flight in (16, 128)]
        results += _at_64(sides)
        results.append(_latency(sides))
    return [*results, *asyncio.run(_intents())]


def _throughput(sides: Sides, in_flight: int) -> Result:
    count = COUNTS[in_flight]
    pairs = [(sides.ours(in_flight, count), sides.go(in_flight, count, "status")) for _ in range(ROUNDS)]
    return _rates(f"fabric_throughput_{in_flight}", pairs)


def _at_64(sides: Sides) -> list[Result]:
    """Throughput and CPU of the same runs."""
    count = COUNTS[64]
    runs = [
        (sides.ours(64, count), sides.go(64, count, "status"), sides.go(64, count, "blocks")) for _ in range(ROUNDS)
    ]
    status = [(ours, go) for ours, go, _ in runs]
    blocks = [(ours, go) for ours, _, go in runs]
    found = [
        _rates("fabric_throughput_64", status),
        _cpu("fabric_cpu_64", status, _STATUS),
        _cpu("fabric_cpu_64_blocks", blocks, f"{_GO}, block events"),
    ]
    for part in runs[0][0].parts_ms:
        values = [ours.parts_ms[part] for ours, _ in status]
        ratios = [go.parts_ms[part] / max(ours.parts_ms[part], 1e-6) for ours, go in status]
        found.append(_result(f"fabric_cpu_64_of_{part.partition('.')[0]}", values, "ms/tx", ratios, _STATUS))
    return found


def _rates(name: str, pairs: list[tuple[Run, Run]]) -> Result:
    return _result(name, [ours.rate for ours, _ in pairs], "tx/s", [ours.rate / go.rate for ours, go in pairs], _STATUS)


def _cpu(name: str, pairs: list[tuple[Run, Run]], against: str) -> Result:
    values = [ours.cpu_ms for ours, _ in pairs]
    return _result(name, values, "ms/tx", [go.cpu_ms / ours.cpu_ms for ours, go in pairs], against)


def _latency(sides: Sides) -> Result:
    pairs = [(sides.ours(1, COUNTS[1]), sides.go(1, COUNTS[1], "status")) for _ in range(ROUNDS)]
    over = statistics.median(ours.median_ms - go.median_ms for ours, go in pairs)
    text = f"over Go's; a commit takes {statistics.median(ours.median_ms for ours, _ in pairs):.0f} ms here"
    return {"name": "fabric_latency_1", "value": over, "unit": "ms", "ratio": 0.0, "against": text}


async def _intents() -> list[Result]:
    """The real path: an intent signed by an actor, checked by the contract, 64 in flight."""
    count = COUNTS[64]
    async with founded() as site:
        made = [await site.intent("bench.put", {"name": f"n{n}", "value": "v" * 200}, f"i{n}") for n in range(count)]

        async def intent(number: int) -> bytes:
            return made[number]

        before = usage.cpu_of(site.ground)
        done = await puts(site.ledger, count, 64, intent)
        parts = usage.used(before, usage.cpu_of(site.ground))
    if done["invalid"]:
        raise RuntimeError(f"{done['invalid']} intents of {count} were judged invalid")
    cpu_ms = (sum(parts.values()) + done["cpu_s"]) * 1000 / count
    text = f"signed intents through the contract; its chaincode {parts[f'flexrelay_1.{ORG}'] * 1000 / count:.2f} ms"
    rate = count / done["seconds"]
    return [
        {"name": "fabric_intents_64", "value": rate, "unit": "tx/s", "ratio": 0.0, "against": text},
        {"name": "fabric_intents_64_cpu", "value": cpu_ms, "unit": "ms/tx", "ratio": 0.0, "against": text},
    ]


def _result(name: str, values: list[float], unit: str, ratios: list[float], against: str) -> Result:
    return {
        "name": name,
        "value": statistics.median(values),
        "unit": unit,
        "ratio": statistics.median(ratios),
        "against": against,
    }
