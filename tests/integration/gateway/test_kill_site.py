"""kill -9 of a whole site under load: nothing acknowledged is lost, nothing torn, nothing anchored or paid twice.

Two organisations' gateways on one ledger take signed readings from a real broker, anchor every second and pay through
the outbox. The acknowledgements are read outside the site, on its way to the broker. `make soak` runs the full count.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.chance import told_seed
from support.contracts import sign
from support.gateway import GatewayProcess, Marks, Nursery
from support.load import JournalChecker, Load
from support.mosquitto import mosquitto
from support.mqtt_proxy import AckRecorder
from support.site import operator_desk, publish_today, register_device, site
from support.site_process import ORGS, POINTS, STARTING, SiteOrders, amount_of, payment_id

from flexrelay.app import Level, open_site
from flexrelay.config import load
from flexrelay.demo.broker import Account, gateway_account
from flexrelay.demo.devices import Device, DeviceIdentity
from flexrelay.demo.plants import SeriesPlant
from flexrelay.devices import DeviceRecord
from flexrelay.journal.sqlite import SqliteJournal
from flexrelay.ledger.embedded.verify import verify
from flexrelay.projections import PROJECTIONS, Projections
from flexrelay.store import Store
from flexrelay.windows.vault import period_of, salt_of
from flexrelay_adapters.mqtt import MqttConfig
from flexrelay_adapters.mqtt._client import MqttiumConnection
from flexrelay_contracts.rules import merkle
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.evidence import Window
from flexrelay_sdk.clock import wall_ms

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(3600)]

DEVICES = 20
STEP_S = 20
PER_SECOND = 300
DAY_MS = 86_400_000
PATIENCE_S = 150.0

CI_RANDOM, SOAK_RANDOM, SOAK_EACH_POINT = 3, 60, 2


@dataclass(frozen=True)
class Kill:
    """At a point, on a later pass, a little later; or (`after_s`) some time after the start."""

    point: str = ""
    skip: int = 0
    delay_us: int = 0
    after_s: float | None = None


async def found_site(folder: Path, ports: dict[str, int]) -> list[Device]:
    """A founded data folder with devices that every organisation has enrolled, and its adapters' sections."""
    devices = []
    plant = SeriesPlant([100] * 10_000)
    async with site(folder, ORGS) as opened:
        gateways = opened.gateways
        await publish_today(gateways["dso"])
        # back-filled from yesterday on, so that windows close at once; midnight itself belongs to the day before
        start_ms = wall_ms() // DAY_MS * DAY_MS - DAY_MS + STEP_S * 1000
        desk = operator_desk(gateways["dso"])
        for number in range(DEVICES):
            made = await register_device(gateways["dso"], desk, f"m{number}")
            await gateways["agg-a"].devices.add(DeviceRecord(made.did, f"m{number}", "meter"))

            def signed(message: bytes, private: Any = made.private) -> bytes:
                return b64u_decode(sign(private, message))

            identity = DeviceIdentity(f"m{number}", made.did, signed, "unused")
            devices.append(Device(identity, plant, ORGS, start_ms=start_ms, isp_seconds=STEP_S))
    head, *parts = (
        (folder / "flexrelay.toml")
        .read_text()
        .replace("anchor_every_s = 900", "anchor_every_s = 1")
        .split("[[gateways]]\n")
    )
    for part, org in zip(parts, ORGS, strict=True):
        values = "".join(f"{name} = {json.dumps(value)}\n" for name, value in adapter(org, ports[org]).items())
        head += f'[[gateways]]\n{part}[gateways.adapters.{org}]\ntype = "mqtt"\n{values}'
    (folder / "flexrelay.toml").write_text(head)
    return devices


def adapter(org: str, port: int) -> dict[str, Any]:
    return {
        "port": port,
        "client_id": f"gw-{org}",
        "username": f"gateway-{org}",
        "password": "secret-g",
        "readings": [f"flexrelay/v1/{org}/{{device}}/readings"],
        "batch": 100,
        "backoff_min_s": 0.05,
        "backoff_max_s": 0.2,
    }


async def subscribed(org: str, port: int) -> None:
    """From now on the broker keeps for this gateway what is sent."""
    config = MqttConfig.model_validate({"name": org, **adapter(org, port)})
    session = await MqttiumConnection.open(config)
    await session.subscribe([f"flexrelay/v1/{org}/+/readings"])
    await session.close()


async def ended(process: GatewayProcess, kill: Kill) -> bool:
    """Whether SIGKILL ended the site as planned; False when it never came to the point (it is killed then)."""
    if kill.after_s is not None:
        await asyncio.sleep(kill.after_s)
        process.kill()
    done, _ = await asyncio.wait({process.ended}, timeout=PATIENCE_S)
    process.kill()
    status = await process.ended
    assert status == -signal.SIGKILL, f"the site ended by itself with status {status}; see site.log"
    return bool(done)


async def up(process: GatewayProcess, marks: Marks) -> None:
    """Until it has begun to open the site: from then on it hears SIGTERM."""
    async with asyncio.timeout(PATIENCE_S):
        while marks.point == STARTING and not process.ended.done():  # noqa: ASYNC110 (a mark in shared memory)
            await asyncio.sleep(0.01)


async def campaign(folder: Path, plan: list[Kill]) -> Counter[str]:
    hit: Counter[str] = Counter()
    data = folder / "data"
    accounts = [gateway_account(org, f"gateway-{org}", "secret-g") for org in ORGS]
    accounts.append(Account("load", "secret-l", write=("flexrelay/v1/+/+/readings",)))
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(mosquitto(folder / "broker", accounts))
        recorders = {org: AckRecorder(broker.port) for org in ORGS}
        for recorder in recorders.values():
            await stack.enter_async_context(recorder.running())
        devices = await found_site(data, {org: recorder.port for org, recorder in recorders.items()})
        for org, recorder in recorders.items():
            await subscribed(org, recorder.port)
        checkers = {org: JournalChecker(data / org / "journal.db") for org in ORGS}
        marks = Marks(data / "marks", points=POINTS)
        nursery = await stack.enter_async_context(Nursery.running())

        async def checked() -> None:
            for org in ORGS:
                await recorders[org].settled()
                await checkers[org].check(recorders[org].acknowledged)
            report = await asyncio.to_thread(verify, data / "ledger")
            assert report.ok, [str(problem) for problem in report.problems]

        async with Load(broker, devices, PER_SECOND).running() as sending:
            for number, kill in enumerate(plan):
                marks.reset()
                orders = SiteOrders(data, kill.point, kill.skip, kill.delay_us)
                if not await ended(await nursery.start(orders), kill):
                    pytest.fail(f"kill {number}: the site never came to {kill.point!r}; it was at {marks.point!r}")
                hit[marks.point] += 1
                if number % 10 == 0 or len(plan) < 50:
                    await checked()
            marks.reset()
            stopping = await nursery.start(SiteOrders(data))  # a clean stop under load
            await up(stopping, marks)
            await asyncio.sleep(2.0)
            os.kill(stopping.pid, signal.SIGTERM)
            await asyncio.wait({stopping.ended}, timeout=PATIENCE_S)
            stopping.kill()
            assert await stopping.ended == 0, "SIGTERM did not end the site cleanly under load; see site.log"
            await checked()
        (data / "enough").touch()
        marks.reset()
        last = await nursery.start(SiteOrders(data))
        try:
            await up(last, marks)
            await drained(last, data, {org: (recorders[org], set(sending.sent)) for org in ORGS})
            os.kill(last.pid, signal.SIGTERM)
            await asyncio.wait({last.ended}, timeout=PATIENCE_S)
            assert last.ended.done(), "SIGTERM did not end the site"
            assert last.ended.result() == 0
        finally:
            last.kill()
            await last.ended
        await checked()
    for org in ORGS:
        assert set(sending.sent) <= set(checkers[org].stored), "confirmed by the broker, never in the journal"
        assert recorders[org].foreign == 0
        await check_windows(data, org)
    await check_payments(data)
    anchors = [await rebuilt(data, org) for org in ORGS]
    print(f"\n{len(plan)} kills, {len(sending.sent) // len(ORGS)} readings, {anchors} anchors; points hit:")
    for point in POINTS:
        print(f"  {hit[point]:4d}  {point}")
    return hit


async def drained(process: GatewayProcess, data: Path, sides: dict[str, tuple[AckRecorder, set[bytes]]]) -> None:
    """Wait until everything is acknowledged, closed, anchored and carried to its end, while it goes on at all."""
    deadline, before = time.monotonic() + PATIENCE_S, None
    while True:
        assert not process.ended.done(), "the site ended by itself; see site.log"
        missing = {org: len(sent - set(recorder.acknowledged)) for org, (recorder, sent) in sides.items()}
        open_work = {org: unfinished(data / org / "store.db") for org in ORGS}
        if not any(missing.values()) and not any(any(counts) for counts in open_work.values()):
            return
        if before != (before := (missing, open_work)):
            deadline = time.monotonic() + PATIENCE_S  # a machine may be slow; standing still is what fails
        if time.monotonic() > deadline:
            pytest.fail(f"not drained: unacknowledged {missing}; open leaves, windows, anchors, intents: {open_work}")
        await asyncio.sleep(0.3)


def rows(path: Path, query: str, *values: Any) -> list[Any]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query, values).fetchall()


def unfinished(store: Path) -> tuple[int, ...]:
    return tuple(
        rows(store, query)[0][0]
        for query in (
            "SELECT count(*) FROM window_leaf WHERE since = 0",
            "SELECT count(*) FROM window_revision WHERE anchor IS NULL",
            "SELECT count(*) FROM window_anchor WHERE handed = 0",
            "SELECT count(*) FROM outbox_entry WHERE open = 1",
        )
    )


async def check_windows(data: Path, org: str) -> None:
    """Every reading is one leaf, every leaf in one chain of revisions, every revision under one anchor, every anchor
    once on the ledger; every root is made again from the journal and the vault."""
    store = data / org / "store.db"
    names = dict(rows(store, "SELECT id, did FROM window_device"))
    secret_of = {
        (did, period): secret for did, period, secret in rows(data / org / "vault.db", "SELECT * FROM vault_secret")
    }
    expected = {}
    async with SqliteJournal(data / org / "journal.db") as journal:
        position = 0
        while entries := await journal.read(position, 5000):
            position = entries[-1].position
            for entry in entries:
                (measurement,) = entry.measurements
                place = (entry.did, measurement.observed_at)
                assert place not in expected, f"{place} is twice in the journal of {org}"
                salt = salt_of(secret_of[entry.did, period_of(place[1])], place[1], entry.payload)
                expected[place] = (entry.position, merkle.leaf_hash(salt, entry.payload))
    leaves = defaultdict(list)
    found = {}
    for device, observed_at, at, since, digest in rows(store, "SELECT * FROM window_leaf ORDER BY device, observed_at"):
        found[names[device], observed_at] = (at, digest)
        leaves[device].append((observed_at, since, digest))
    assert found == expected

    chain: dict[tuple[int, int], list[Window]] = defaultdict(list)
    under: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    covered = 0
    columns = "device, end_ms, revision, start_ms, document, leaf, leaves, anchor, anchor_index"
    for device, end, revision, start, text, leaf, count, anchor, index in rows(
        store, f"SELECT {columns} FROM window_revision ORDER BY device, end_ms, revision"
    ):
        window = Window.model_validate_json(text)
        before = chain[device, end]
        inside = [row for row in leaves[device] if start < row[0] <= end]
        hashes = [digest for _, since, digest in inside if since <= revision]
        assert revision == len(before) + 1 == window.revision
        assert window.previous == (before[-1].root if before else "")
        assert (len(hashes), merkle.root(hashes).hex(), window.leaf_hash()) == (count, window.root, leaf)
        assert any(since == revision for _, since, _ in inside)
        covered += sum(since == revision for _, since, _ in inside)
        before.append(window)
        under[anchor].append((index, leaf))
    assert covered == len(expected), "a leaf is in no window, or in two"

    anchors = dict(rows(store, "SELECT id, root FROM window_anchor"))
    assert set(anchors) == set(under)
    for anchor, placed in under.items():
        placed.sort()
        assert [index for index, _ in placed] == list(range(len(placed)))
        assert merkle.root([leaf for _, leaf in placed]).hex() == anchors[anchor]
    told = events(store, "evidence.anchored")
    mine = [(event["anchor_id"], event["root"]) for event in told if event["org"] == org]
    assert len(mine) == len(set(mine)), "an anchor is on the ledger twice"
    assert dict(mine) == anchors and len(mine) == len(anchors)


def events(store: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(row[0]) for row in rows(store, "SELECT payload FROM event WHERE name = ?", name)]


async def check_payments(data: Path) -> None:
    """Every payment that the outbox took has one end, and the chain says the same; the balance is their sum."""
    taken = {payment_id(int(line)): amount_of(int(line)) for line in (data / "payments").read_text().splitlines()}
    query = "SELECT intent_id, state FROM outbox_entry WHERE function = 'accounts.fund'"
    states = dict(rows(data / "dso" / "store.db", query))
    assert set(states) >= set(taken)
    assert set(states.values()) <= {"committed", "expired"}, Counter(states.values())
    posted = [
        (line["ref"], line["micro_eur"])
        for event in events(data / "dso" / "store.db", "accounts.posted")
        for line in event["lines"]
    ]
    assert len(posted) == len(set(posted)), "a payment is on the ledger twice"
    assert {ref for ref, _ in posted} == {intent for intent, state in states.items() if state == "committed"}
    assert all(taken[ref] == amount for ref, amount in posted if ref in taken)
    async with open_site(data, load(data), Level.READING) as opened:
        gateway = opened.gateways["dso"]
        account = f"actor:{operator_desk(gateway).did}"
        held = await gateway.ledger.evaluate("accounts.balance", {"account": account})
    assert held["micro_eur"] == sum(amount for _, amount in posted)
    print(f"payments: {Counter(states.values())}")


async def rebuilt(data: Path, org: str) -> int:
    """Projections from zero give the same bytes; the number of anchors in them."""
    async with open_site(data, load(data), Level.READING) as opened:
        gateway = opened.gateways[org]
        last = await opened.ledger.height() - 1
        kept = await gateway.projections.dump()
        async with (
            Store(data / f"{org}-anew.db", (PROJECTIONS,)) as store,
            Projections(gateway.ledger, store, org) as projections,
        ):
            await projections.reached(last)
            assert await projections.dump() == kept
        audit = await gateway.audit.run()
        assert audit.ok, audit
        return len(await gateway.views.documents("anchor"))


def at_points(each: int, randomness: random.Random, points: Iterable[str] = POINTS) -> list[Kill]:
    """Every labelled point, with and without a short delay, on a later pass."""
    return [
        Kill(
            point,
            0 if point in POINTS[:2] else randomness.randrange(4),
            0 if n % 2 == 0 else randomness.randrange(1, 3000),
        )
        for n in range(each)
        for point in points
    ]


def at_random(count: int, randomness: random.Random) -> list[Kill]:
    return [Kill(after_s=randomness.uniform(0.2, 2.5)) for _ in range(count)]


async def test_a_few_kills_of_a_whole_site(tmp_path: Path) -> None:
    randomness = random.Random(1)
    points = [point for point in POINTS[2:] if "ledger: block" in point or "outbox" in point or "windows" in point]
    plan = at_points(1, randomness, randomness.sample(points, 5)) + at_random(CI_RANDOM, randomness)
    hit = await campaign(tmp_path, plan)
    assert set(hit) >= {kill.point for kill in plan if kill.point and not kill.delay_us}


@pytest.mark.soak
async def test_at_least_a_hundred_kills_of_a_whole_site(tmp_path: Path) -> None:
    randomness = random.Random(told_seed())
    plan = at_points(SOAK_EACH_POINT, randomness) + at_random(SOAK_RANDOM, randomness)
    randomness.shuffle(plan)
    assert len(plan) >= 100
    hit = await campaign(tmp_path, plan)
    assert sum(hit.values()) == len(plan)
    assert set(hit) >= set(POINTS)
