"""Memory of a gateway with 2,000 LwM2M clients: ten minutes at a moderate rate, adapter to journal in one process.

Every client does one thing each `INTERVAL_S`, by turns a Send of ten records, a notification, and now and then a
registration update; one of four does it over DTLS-PSK. So all the tables that could grow are in use: duplicates
(they are full after 247 s at this rate or at their bound), sessions, observations, blocks, journal.
`FLEXRELAY_GROWTH_S` changes the length.
"""

import asyncio
import heapq
import json
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from flexrelay.bench import Result
from flexrelay.bench.growth import _resident_mb
from flexrelay.bench.lwm2m import _KEY, START, _Client, _prepare, _registry
from flexrelay.ingest import Ingest, NoHistory, RegisterChecks
from flexrelay.journal import SqliteJournal
from flexrelay_adapters.lwm2m import Lwm2mAdapter, Lwm2mConfig
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.message import serialise

CLIENTS: Final = 2_000
INTERVAL_S: Final = 4.0
SECURE: Final = 4
"""One client of so many speaks DTLS."""
UPDATE: Final = 16
"""One turn of so many is a registration update."""
AGAIN_S: Final = 3.0
SAMPLE_S: Final = 1.0


def run() -> list[Result]:
    """lwm2m_memory: the greatest resident memory of the gateway's process; lwm2m_memory_growth: what it grew by in the
    second half of the run, with the ratio to what it was at half time."""
    seconds = float(os.environ.get("FLEXRELAY_GROWTH_S", "600"))
    with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
        told = _measure(Path(folder), seconds)
    load = (
        f"300 MB; {told['answered']:,.0f} requests of {CLIENTS:,} clients in {seconds:.0f} s, {told['cpu_s']:.0f} CPU-s"
    )
    early, late = told["early_mb"], told["late_mb"]
    return [
        {
            "name": "lwm2m_memory",
            "value": told["most_mb"],
            "unit": "MB",
            "ratio": told["most_mb"] / 300,
            "against": load,
        },
        {
            "name": "lwm2m_memory_growth",
            "value": late - early,
            "unit": "MB",
            "ratio": (late - early) / early,
            "against": f"{early:.1f} MB at half time",
        },
    ]


def _measure(folder: Path, seconds: float) -> dict[str, float]:
    program = [sys.executable, "-m", "flexrelay.bench.lwm2m_memory"]
    server = subprocess.Popen(
        [*program, "serve", str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None and server.stdout is not None
    try:
        ports = server.stdout.readline().split()
        load = [*program, "load", *ports, str(seconds)]
        done = subprocess.run(load, check=True, stdout=subprocess.PIPE, text=True, timeout=seconds * 2 + 300)
        server.stdin.close()
        told: dict[str, float] = json.loads(server.stdout.readline())
        server.wait(60)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()
    told |= json.loads(done.stdout)
    if told["stored"] < told["readings"]:
        raise AssertionError(f"{told['stored']:.0f} of {told['readings']:.0f} acknowledged readings are stored")
    return told


async def _serve(folder: Path) -> None:
    keys = "".join(f"meter-{number}:{_KEY.hex()}\n" for number in range(CLIENTS))
    (folder / "keys").write_text(keys)
    section = {
        "coap": {"port": 0},
        "coaps": {"port": 0, "psk_file": folder / "keys"},
        "state": folder / "registrations.db",
        "observe": ("/3305/0",),
    }
    adapter = Lwm2mAdapter(Lwm2mConfig.from_section("bench", section))
    async with SqliteJournal(folder / "journal.db") as journal:
        checks = RegisterChecks(NoHistory(), journal.traces)
        ingest = Ingest(_registry(CLIENTS), journal, checks, lambda: (START + 10**6) * 1000)
        running = asyncio.create_task(adapter.run(ingest))
        await asyncio.wait({running, asyncio.ensure_future(adapter.wait_connected())}, return_when="FIRST_COMPLETED")
        if running.done():
            running.result()
        print(adapter.coap_port, adapter.coaps_port, flush=True)
        samples: list[tuple[float, float]] = []
        sampling = asyncio.create_task(_sample(samples, adapter))
        begin, cpu = time.monotonic(), time.process_time()
        await asyncio.to_thread(sys.stdin.read)
        cpu = time.process_time() - cpu
        half = (begin + time.monotonic()) / 2
        early = min(samples, key=lambda sample: abs(sample[0] - half))[1]
        for task in (sampling, running):
            task.cancel()
        await asyncio.gather(sampling, running, return_exceptions=True)
        await ingest.close()
        told = {
            "early_mb": early,
            "late_mb": samples[-1][1],
            "most_mb": max(sample for _, sample in samples),
            "stored": ingest.outcomes["stored"] + ingest.outcomes["duplicate"],
            "cpu_s": cpu,
        }
        print(json.dumps(told), flush=True)
        print(f"{dict(ingest.outcomes)} {adapter.counters()}", file=sys.stderr)


async def _sample(samples: list[tuple[float, float]], adapter: Lwm2mAdapter) -> None:
    while True:
        samples.append((time.monotonic(), _resident_mb()))
        if len(samples) % 60 == 1:
            print(f"{len(adapter.registrations)} clients, {samples[-1][1]:.1f} MB", file=sys.stderr)
        await asyncio.sleep(SAMPLE_S)


def _load(port: int, secure: int, seconds: float) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    waiting = selectors.DefaultSelector()
    clients = []
    for number in range(CLIENTS):
        what, where = ("dtls", secure) if number % SECURE == 0 else ("send", port)
        client = _Client(number, where, what)
        client.left = 10**5
        waiting.register(client.socket, selectors.EVENT_READ, client)
        clients.append(client)
    _register(clients, waiting)
    answered = {"readings": 0, "updates": 0}
    begin = looked = time.monotonic()
    due = [(begin + INTERVAL_S * number / CLIENTS, number) for number in range(CLIENTS)]
    while (now := time.monotonic()) < begin + seconds:
        while due and due[0][0] <= now:
            at, number = heapq.heappop(due)
            client = clients[number]
            if client.sent_at == float("inf"):  # else its former message is still under way (NSTART 1)
                client._what = "update" if client.left % UPDATE == 0 else ("send", "notify")[client.left % 2]
                client.next()
            heapq.heappush(due, (at + INTERVAL_S, number))
        for key, _ in waiting.select(max(0.0, due[0][0] - now)):
            _hear(key.data, answered)
        if now - looked > 1:
            looked = now
            for client in clients:
                if now - client.sent_at > AGAIN_S:
                    client.again()
    print(json.dumps({"answered": answered["readings"] + answered["updates"], **answered}))


def _register(clients: list[_Client], waiting: selectors.BaseSelector) -> None:
    for first in range(0, len(clients), 50):
        group = clients[first : first + 50]
        for client in group:
            client.start()
        until = time.monotonic() + 60
        while any(not (client.location and client.token) for client in group):
            if time.monotonic() > until:
                raise AssertionError("not all clients could register")
            for key, _ in waiting.select(1):
                _prepare(key.data, "notify")


def _hear(client: _Client, answered: dict[str, int]) -> None:
    for message in client.messages():
        if message.code == codes.GET:  # its device object: it tells nothing
            client._out(serialise(codes.ACK, codes.NOT_FOUND, message.mid, message.token, ()))
        if message.kind != codes.ACK or message.mid != client.mid or client.sent_at == float("inf"):
            continue
        if message.code not in (codes.CHANGED, codes.EMPTY):
            raise AssertionError(f"answered {message}")
        client.sent_at = float("inf")
        answered["updates" if client._what == "update" else "readings"] += 1


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve(Path(sys.argv[2])))
    else:
        _load(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
