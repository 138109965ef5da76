"""kill -9 of the gateway under QoS 1 load: what it acknowledged is in the journal, whole and once.

The acknowledgements are read outside the gateway, on its way to the broker (`support.mqtt_proxy`). `make soak` runs
the full count; CI a few at random moments and one at each labelled point.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

import pytest
from support.chance import told_seed
from support.gateway import POINTS, GatewayProcess, Marks, Nursery, Orders, mqtt_config
from support.load import JournalChecker, Load
from support.mosquitto import mosquitto
from support.mqtt_proxy import AckRecorder

from flexrelay.demo.broker import Account, gateway_account
from flexrelay.demo.devices import Device, DeviceIdentity, device_key
from flexrelay.demo.plants import SeriesPlant
from flexrelay_adapters.mqtt._client import MqttiumConnection
from flexrelay_schemas.did import Create, key_hash
from flexrelay_schemas.keys import multikey

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(1200)]

PATIENCE_S = 150.0
START = 1_463_004_000_000
ISPS = 20_000
DEVICES = 100
"""Readings under way are spread over many devices, as in the field."""

CI_RANDOM, SOAK_RANDOM, SOAK_EACH_POINT = 4, 120, 4


def fleet() -> tuple[list[Device], tuple[tuple[str, str], ...]]:
    devices, keys = [], []
    plant = SeriesPlant([100] * ISPS)
    for number in range(DEVICES):
        key = device_key("kill", str(number))
        public = multikey(key.public_key())
        create = Create(network="simnet", kind="device", key=public, next_key_hash=key_hash("z"), nonce="0" * 32)
        identity = DeviceIdentity(str(number), create.did(), key.sign, "unused")
        devices.append(Device(identity, plant, ["dso"], start_ms=START))
        keys.append((identity.did, public))
    return devices, tuple(keys)


async def killed(gateway: GatewayProcess, after_s: float | None) -> bool:
    """Whether SIGKILL ended the process in time: ours `after_s` from now, or its own (None; `PATIENCE_S` at most)."""
    if after_s is not None:
        await asyncio.sleep(after_s)
        gateway.kill()
    done, _ = await asyncio.wait({gateway.ended}, timeout=PATIENCE_S)
    if not done:
        gateway.kill()
    status = await gateway.ended
    assert status == -signal.SIGKILL, f"the gateway ended by itself with status {status}; see gateway.log"
    return bool(done)


async def campaign(
    folder: Path, plan: list[tuple[str, int, int, float | None]], per_second: int = 1500
) -> Counter[str]:
    """Run the kills of `plan` (point, skip, delay µs, or seconds), check after each, then drain; points hit."""
    devices, keys = fleet()
    accounts = [
        gateway_account("dso", "gateway-dso", "secret-g"),
        Account("load", "secret-l", write=("flexrelay/v1/dso/+/readings",)),
    ]
    hit: Counter[str] = Counter()
    async with mosquitto(folder / "broker", accounts) as broker:
        recorder = AckRecorder(broker.port)
        marks = Marks(folder / "marks")
        checker = JournalChecker(folder / "journal.db")
        common = {
            "folder": folder,
            "network": "simnet",
            "devices": keys,
            "market_ms": START + ISPS * 900_000,
        }
        limits = {"stale_ms": ISPS * 900_000}
        async with recorder.running(), Nursery.running() as nursery:
            session = await MqttiumConnection.open(mqtt_config(recorder.port))
            await session.subscribe(["flexrelay/v1/dso/+/readings"])  # from now on the broker keeps what is sent
            await session.close()
            async with Load(broker, devices, per_second).running() as load:
                for point, skip, delay_us, after_s in plan:
                    marks.reset()
                    orders = Orders(
                        **common, port=recorder.port, kill_at=point, skip=skip, delay_us=delay_us, limits=limits
                    )
                    if not await killed(await nursery.start(orders), after_s):
                        pytest.fail(
                            f"the gateway never came to {point!r}; it was {marks.point!r}, {marks.passes} batches; "
                            f"{len(load.sent)} sent, {len(recorder.delivered)} delivered, "
                            f"{len(recorder.acknowledged)} acknowledged"
                        )
                    hit[marks.point] += 1
                    await recorder.settled()
                    await checker.check(recorder.acknowledged)
            last = await nursery.start(Orders(**common, port=recorder.port, limits=limits))
            try:
                await drained(last, recorder, load)
            finally:
                last.kill()
                await last.ended
            await recorder.settled()
        await checker.check(recorder.acknowledged)
    assert recorder.foreign == 0
    assert set(load.sent) <= set(checker.stored), "the broker confirmed readings that never came to the journal"
    print(
        f"\n{len(plan)} kills, {len(load.sent)} readings, {sum(recorder.acknowledged.values())} acknowledgements, hit:"
    )
    for point in POINTS:
        print(f"  {hit[point]:4d}  {point}")
    return hit


async def drained(gateway: GatewayProcess, recorder: AckRecorder, load: Load) -> None:
    """Wait until the gateway has acknowledged everything that the broker took."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while len(recorder.acknowledged) < len(load.sent):
                assert not gateway.ended.done(), "the gateway ended by itself; see gateway.log"
                await asyncio.sleep(0.05)
    except TimeoutError:
        missing = [payload for payload in load.sent if payload not in recorder.acknowledged]
        never = sum(payload not in recorder.delivered for payload in missing)
        pytest.fail(f"{len(missing)} of {len(load.sent)} readings not acknowledged, {never} of them never delivered")


def at_points(each: int, randomness: random.Random) -> list[tuple[str, int, int, float | None]]:
    """Every labelled point `each` times, with and without a short delay, on a later pass where there is one."""
    passing = POINTS.index("waiting for readings")
    return [
        (
            point,
            randomness.randrange(6) if POINTS.index(point) >= passing else 0,
            0 if number % 2 == 0 else randomness.randrange(1, 3000),
            None,
        )
        for number in range(each)
        for point in POINTS
    ]


def at_random(count: int, randomness: random.Random) -> list[tuple[str, int, int, float | None]]:
    return [("", 0, 0, randomness.uniform(0.02, 0.6)) for _ in range(count)]


async def test_a_few_kills(tmp_path: Path) -> None:
    randomness = random.Random(1)
    hit = await campaign(tmp_path, at_points(1, randomness) + at_random(CI_RANDOM, randomness))
    assert set(hit) >= set(POINTS)


@pytest.mark.soak
async def test_at_least_a_hundred_random_kills(tmp_path: Path) -> None:
    randomness = random.Random(told_seed())
    plan = at_points(SOAK_EACH_POINT, randomness) + at_random(SOAK_RANDOM, randomness)
    randomness.shuffle(plan)
    hit = await campaign(tmp_path, plan)
    assert set(hit) >= set(POINTS)
    assert sum(hit.values()) == len(plan)
