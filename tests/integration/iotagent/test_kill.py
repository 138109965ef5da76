"""kill -9 of a gateway that takes Ultralight from a broker: what it acknowledged is in the journal, whole and once."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import aiomqtt
import pytest
from support.chance import told_seed
from support.load import JournalChecker
from support.mosquitto import mosquitto
from support.mqtt_proxy import AckRecorder

from flexrelay.demo.broker import Account

pytestmark = [pytest.mark.mosquitto, pytest.mark.timeout(300)]

KILLS, READINGS = 5, 6000
PROGRAM = """
import asyncio, sys
from pathlib import Path
from flexrelay.ingest import Enrolment, Ingest, NativeCodec, NoHistory, RegisterChecks, Registry
from flexrelay.journal import SqliteJournal
from flexrelay_adapters.ultralight import make_adapter
from flexrelay_schemas.did import Create, key_hash

async def main(folder, port):
    registry = Registry("kill", "dso")
    for number in range(50):
        key = "z" + "1" * 45
        did = Create(network="kill", kind="device", key=key, next_key_hash=key_hash("-"), nonce=f"{number:032x}").did()
        registry.apply("identity.registered", {"did": did, "kind": "device", "key": key, "version": 1})
        registry.enrol(Enrolment(did, (("ultralight", f"key/d{number}"),), unsigned=True))
    mqtt = {"port": port, "client_id": "gw", "username": "gw", "password": "gw", "backoff_min_s": 0.05}
    mapping = {"registers": {"import_j": {"pointer": "/e", "unit": "Wh"}}}
    adapter = make_adapter("farm", {"mqtt": mqtt, "codec": mapping}, folder, NativeCodec())
    async with SqliteJournal(folder / "journal.db") as journal:
        checks = RegisterChecks(NoHistory(), journal.traces)
        checks.prime()
        await adapter.run(Ingest(registry, journal, checks, lambda: 1_700_000_900_000))

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def test_what_was_acknowledged_is_in_the_journal(tmp_path: Path) -> None:
    chance = random.Random(told_seed())
    accounts = (
        Account("gw", "gw", read=("/ul/#",), write=("/+/+/cmd",)),
        Account("load", "load", write=("/ul/#",)),
    )
    async with mosquitto(tmp_path / "broker", accounts) as broker:
        recorder = AckRecorder(broker.port)
        checker = JournalChecker(tmp_path / "journal.db")
        async with recorder.running():
            process = await _gateway(tmp_path, recorder.port)
            while not recorder.connections:  # noqa: ASYNC110  # another process connects
                await asyncio.sleep(0.05)
            await asyncio.sleep(1.0)  # subscribed: from now on the broker keeps what is sent
            loading = asyncio.create_task(_load(broker.port))
            for _ in range(KILLS):
                await asyncio.sleep(chance.uniform(0.05, 0.6))
                process.kill()
                await process.wait()
                await recorder.settled()
                await checker.check(recorder.acknowledged)
                process = await _gateway(tmp_path, recorder.port)
                await asyncio.sleep(1.0)
            await loading
            async with asyncio.timeout(60):
                while len(recorder.acknowledged) < READINGS:  # noqa: ASYNC110  # another process's work
                    await asyncio.sleep(0.1)
            process.kill()
            await process.wait()
            await recorder.settled()
        await checker.check(recorder.acknowledged)
        assert len(checker.stored) == READINGS and recorder.foreign == 0


async def _gateway(folder: Path, port: int) -> asyncio.subprocess.Process:
    with (folder / "gateway.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, str(folder), str(port), stdout=log, stderr=log
        )


async def _load(port: int) -> None:
    async with aiomqtt.Client("127.0.0.1", port, username="load", password="load", timeout=60) as client:
        for begin in range(0, READINGS, 100):
            sending = []
            for number in range(begin, begin + 100):
                after_s = number // 50
                at = f"2023-11-14T22:{14 + after_s // 60:02d}:{after_s % 60:02d}Z"
                sending.append(client.publish(f"/ul/key/d{number % 50}/attrs", f"{at}|e|{number}|n|{number}", qos=1))
            await asyncio.gather(*sending)
            await asyncio.sleep(0.08)
