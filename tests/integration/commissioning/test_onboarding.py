"""Onboarding on a real site: every row checked before anything is done, killed and gone on with, nothing twice."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.contracts import sign
from support.site import NETWORK, site

from flexrelay.app import Site
from flexrelay.commissioning import add_actor, revoke_device
from flexrelay.commissioning.claims import claim_code
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.onboarding import Ended, OnboardingPlan, Source, Step, onboard, plan_onboarding
from flexrelay.ledger.embedded.verify import verify
from flexrelay_adapters.lwm2m.bootstrap import read_accounts
from flexrelay_adapters.lwm2m.dtls.keys import KeyFile
from flexrelay_schemas.did import Create, key_hash, operation_message
from flexrelay_schemas.keys import multikey

pytestmark = pytest.mark.timeout(600)

TESTS = Path(__file__).parents[2]
ORGS = ("dso", "agg")
URI = "coaps://gateway.example:5684"
LWM2M = """
[gateways.adapters.field]
type = "lwm2m"
bootstrap_file = "secrets/boot.json"
[gateways.adapters.field.coaps]
port = 0
psk_file = "secrets/lwm2m.psk"
"""


async def founded(folder: Path, adapters: str = "") -> None:
    async with site(folder, ORGS) as opened:
        await add_actor(opened, "agg", "owner")
    if adapters:
        (folder / "secrets" / "lwm2m.psk").touch(mode=0o600)
        (folder / "secrets" / "boot.json").write_text("{}")
        with (folder / "flexrelay.toml").open("a") as file:
            file.write(adapters)


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows_of(count: int, **more: str) -> list[dict[str, str]]:
    return [{"name": f"m{n}", "kind": "meter", "receivers": "agg dso", **more} for n in range(count)]


async def planned(opened: Site, path: Path, **options: Any) -> OnboardingPlan:
    return await plan_onboarding(opened, Source(path, "agg", "owner", **options))


def enrolled(folder: Path, org: str) -> int:
    """As another process sees it."""
    store = folder / org / "store.db"
    if not store.exists():
        return 0
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM device").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from integration.commissioning.test_onboarding import enrolled
from flexrelay.cli.main import main

folder, wanted = Path(sys.argv.pop(1)), int(sys.argv.pop(1))


def watch():
    while enrolled(folder, "agg") < wanted:
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)


threading.Thread(target=watch, daemon=True).start()
main()
"""
"""The program, which kills itself once so many devices are enrolled: another process could come too late for that."""


def killed_at(folder: Path, wanted: int, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    call = [sys.executable, "-c", KILLED, str(folder), str(wanted), *arguments]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


async def test_a_few_hundred_devices_and_again(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    await founded(folder, LWM2M)
    more = [
        {"name": f"l{n}", "kind": "pv", "protocol": "lwm2m", "unsigned": "yes", "bootstrap": f"boot-{n}"}
        for n in range(40)
    ]
    path = table(tmp_path / "d.csv", [*rows_of(260), *more])
    told: list[tuple[int, int, int]] = []
    async with site(folder, ORGS) as opened:
        plan = await planned(opened, path, lwm2m_uri=URI)
        assert plan.problems == () and plan.count(Step.NEW) == 300
        height = await opened.ledger.height()
        report = await onboard(opened, plan, group=100, progress=lambda *numbers: told.append(numbers))
        blocks = await opened.ledger.height() - height
        print(f"300 devices in {report.seconds} s: {report.per_second} a second, {blocks} blocks")
        assert report.count(Ended.ONBOARDED) == 300 and told[-1] == (300, 0, 300)
        assert blocks < 150, "they share blocks: they were not sent one by one"
        dids = {device.did for device in report.devices}
        assert len(dids) == 300
        agg, dso = opened.gateways["agg"], opened.gateways["dso"]
        assert (len(agg.devices), len(dso.devices)) == (300, 260)
        bound = agg.registry.identify("lwm2m", "l7")
        assert bound is not None and bound.unsigned and bound.refusal is None
        height = await opened.ledger.height()
        again = await onboard(opened, await planned(opened, path, lwm2m_uri=URI))
        assert again.count(Ended.ALREADY) == 300 and {device.did for device in again.devices} == dids
        assert await opened.ledger.height() == height, "asked again, nothing is written"
    keys = KeyFile(folder / "secrets" / "lwm2m.psk")
    accounts = read_accounts(folder / "secrets" / "boot.json")
    assert len(keys) == 80 and len(accounts) == 40
    assert bytes.fromhex(accounts["boot-3"].key) == keys.find("l3")
    for suffix in (".csv", ".json"):
        report.write(tmp_path / f"report{suffix}")
    with (tmp_path / "report.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["ended"] for line in lines] == ["onboarded"] * 300
    assert all(Path(secret).exists() for line in lines for secret in line["secrets"].split())
    text = (tmp_path / "report.json").read_text() + json.dumps(plan.to_json())
    assert not any(line.rpartition(":")[2] in text for line in (folder / "secrets" / "lwm2m.psk").read_text().split())


async def test_kill_9_in_the_middle_and_on(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    await founded(folder)
    count = 240
    path = table(tmp_path / "d.csv", rows_of(count))
    call = ["device", "onboard", str(folder), str(path), "--org", "agg", "--controller", "owner", "--group", "20"]
    killed = []
    for wanted in (1, count // 4, count // 2):
        await asyncio.to_thread(killed_at, folder, wanted, *call)
        killed.append(enrolled(folder, "agg"))
    assert killed[0] < killed[-1] < count, killed
    async with site(folder, ORGS) as opened:
        plan = await planned(opened, path)
        report = await onboard(opened, plan)
        print(f"killed at {killed} of {count}; the rest: {report.count(Ended.ONBOARDED)}")
        assert report.count(Ended.FAILED) == 0 and report.count(Ended.ALREADY) >= killed[-1] - 20
        events = await opened.gateways["dso"].store.read(
            lambda connection: connection.execute(
                "SELECT payload FROM event WHERE name = 'identity.registered'"
            ).fetchall()
        )
        registered = [json.loads(row[0]) for row in events]
        devices = [event["did"] for event in registered if event["kind"] == "device"]
        assert len(devices) == len(set(devices)) == count, "each device is on the ledger once"
        assert {device.did for device in report.devices} == set(devices)
        assert len(opened.gateways["agg"].devices) == len(opened.gateways["dso"].devices) == count
    assert verify(folder / "ledger").ok


async def test_bad_rows_of_every_kind_and_nothing_is_done(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    await founded(folder, LWM2M)
    async with site(folder, ORGS) as opened:
        await add_actor(opened, "dso", "grid")
        first = table(
            tmp_path / "first.csv",
            [
                *rows_of(2),
                {"name": "gone", "kind": "ev"},
                {"name": "l1", "kind": "pv", "protocol": "mqtt", "credential": "plant"},
            ],
        )
        await onboard(opened, await planned(opened, first))
        await revoke_device(opened, "gone")
        (tmp_path / "bad.pem").write_text("no key")
        private = ec.generate_private_key(ec.SECP256R1())
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (tmp_path / "own.pem").write_bytes(pem)
        good = {"name": "x", "kind": "meter"}
        cases: list[tuple[dict[str, str], str, str]] = [
            ({"name": "a b"}, "name", "use letters"),
            ({"name": "m0", "kind": "pv"}, "kind", "has enrolled it with 'meter'"),
            ({"name": "m1", "unsigned": "yes", "receivers": "agg dso"}, "unsigned", "has enrolled it with False"),
            ({"name": "gone", "kind": "ev"}, "name", "is deactivated"),
            ({"name": "m0", "org": "dso", "controller": "grid"}, "name", "is enrolled as did:"),
            ({"kind": "toaster"}, "kind", "is unknown"),
            ({"org": "nobody"}, "org", "has no gateway here"),
            ({"controller": "nobody"}, "controller", "has no actor 'nobody'"),
            ({"controller": "gateway"}, "controller", "has no actor 'gateway'"),
            ({"receivers": "agg mars"}, "receivers", "mars: no organisation"),
            ({"unsigned": "maybe"}, "unsigned", "write yes or no"),
            ({"protocol": "pigeon", "credential": "7"}, "protocol", "no adapter speaks it"),
            ({"credential": "7"}, "protocol", "of which protocol"),
            ({"protocol": "mqtt", "credential": "plant"}, "credential", "is bound to did:"),
            ({"protocol": "opcua", "credential": "server"}, "credential", "SERVER/DEVICE"),
            ({"protocol": "lwm2m", "credential": "#7"}, "credential", "does not begin with #"),
            ({"protocol": "lwm2m", "credential": "q", "bootstrap": "q"}, "bootstrap", "must be another identity"),
            ({"protocol": "lwm2m", "bootstrap": "b", "bootstrap_key": "zz"}, "bootstrap_key", "hexadecimal"),
            ({"protocol": "lwm2m", "bootstrap": "udp:1.2.3.4"}, "bootstrap", "does not begin with udp:"),
            ({"bootstrap": "b"}, "bootstrap", "is for LwM2M devices"),
            ({"key": "nothing.pem"}, "key", "No such file"),
            ({"key": "bad.pem"}, "key", "is not an unencrypted private key"),
            ({"claim": "1234"}, "claim", "28 letters"),
            ({"claim": claim_code(multikey(private.public_key()))}, "claim", "is not there (--operations)"),
        ]  # fmt: skip
        rows = [{**good, "name": f"x{n}", **change} for n, (change, _, _) in enumerate(cases)]
        twice = [{**good, "name": "same"}, {**good, "name": "same"}, {**good, "name": "k1", "key": "own.pem"}]
        twice += [{**good, "name": "k2", "key": "own.pem"}]
        path = table(tmp_path / "bad.csv", [*rows, *twice, {**good, "name": "fine"}])
        height, before = await opened.ledger.height(), sorted(folder.rglob("*"))
        plan = await planned(opened, path, lwm2m_uri=URI)
        by_line: dict[int, list[tuple[str, str]]] = {}
        for problem in plan.problems:
            by_line.setdefault(problem.line, []).append((problem.column, problem.message))
        for line, (change, column, said) in enumerate(cases, 2):
            found = by_line.get(line, [])
            assert any(at == column and said in message for at, message in found), (line, change, found)
        assert ("name", "name at agg 'same' stands in line 26 already") in by_line[27]
        assert by_line[29][0][0] == "key" and "line 28" in by_line[29][0][1]
        assert {26, 28, 30} & set(by_line) == set(), "the first of two, and the good one"
        assert [wanted.name for wanted in plan.wanted] == ["same", "k1", "fine"]
        with pytest.raises(CommissioningError, match="problems, nothing is done"):
            await onboard(opened, plan)
        assert await opened.ledger.height() == height and sorted(folder.rglob("*")) == before
        no_uri = table(tmp_path / "uri.csv", [{**good, "protocol": "lwm2m", "bootstrap": "b"}])
        (problem,) = (await planned(opened, no_uri)).problems
        assert "needs --lwm2m-uri" in problem.message
        with pytest.raises(CommissioningError, match="has no devices"):
            await planned(opened, table(tmp_path / "none.csv", [{"name": "", "kind": ""}]))


async def test_no_device_gets_the_key_of_another(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    await founded(folder, LWM2M)
    toml = folder / "flexrelay.toml"  # the other organisation has such devices too
    toml.write_text(toml.read_text().replace('folder = "dso"\n', f'folder = "dso"\n{LWM2M}', 1))

    def device(name: str, credential: str, bootstrap: str = "", **more: str) -> dict[str, str]:
        given = {"name": name, "kind": "meter", "protocol": "lwm2m", "unsigned": "yes"}
        return {**given, "credential": credential, "bootstrap": bootstrap, **more}

    async with site(folder, ORGS) as opened:
        rows = [device("m1", "a"), device("m2", "b", "a"), device("m3", "a", receivers="dso"), device("m4", "c", "d")]
        plan = await planned(opened, table(tmp_path / "one.csv", rows), lwm2m_uri=URI)
        told = {(problem.line, problem.column, problem.message) for problem in plan.problems}
        taken = "pre-shared key of 'a' stands in line 2 already"
        assert told == {(3, "bootstrap", taken), (4, "credential", taken)}
        good = table(tmp_path / "good.csv", [rows[0], rows[3]])
        assert (await onboard(opened, await planned(opened, good, lwm2m_uri=URI))).count(Ended.ONBOARDED) == 2
        later = [device("n1", "d"), device("n2", "x", "a"), device("n3", "y", "c")]
        plan = await planned(opened, table(tmp_path / "later.csv", later), lwm2m_uri=URI)
        said = "\n".join(map(str, plan.problems))
        assert "line 2, credential: 'd' is a bootstrap identity already" in said
        assert "line 3, bootstrap: 'a' is a device's credential already" in said
        assert "line 4, bootstrap: 'c' is a device's credential already" in said
        elsewhere = table(tmp_path / "elsewhere.csv", [device("n4", "a", receivers="dso")])
        (problem,) = (await planned(opened, elsewhere)).problems
        assert problem.column == "credential" and "lwm2m:a is bound to did:" in problem.message
        with pytest.raises(CommissioningError, match="--lwm2m-uri"):
            await planned(opened, good, lwm2m_uri=f"coaps://{'g' * 200}:5684")


async def test_claimed_devices_keep_their_keys(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    await founded(folder)
    async with site(folder, ORGS) as opened:
        owner = opened.gateways["agg"].wallet.find("owner")
        assert owner is not None
        rows, operations = [], []
        for number in range(5):
            private, following = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
            create = Create(
                network=NETWORK,
                kind="device",
                controller=owner.did if number else opened.gateways["dso"].signer.did,
                key=multikey(private.public_key()),
                next_key_hash=key_hash(multikey(following.public_key())),
                nonce=f"{number:032x}",
            )
            operations.append({"operation": create.model_dump(), "proof": sign(private, operation_message(create))})
            rows.append({"name": f"c{number}", "kind": "meter", "claim": claim_code(create.key).lower()})
        (tmp_path / "ops.jsonl").write_text("\n".join(json.dumps(each) for each in operations))
        refused = await planned(opened, table(tmp_path / "d.csv", rows), operations=tmp_path / "ops.jsonl")
        (problem,) = refused.problems
        assert (problem.line, problem.column) == (2, "claim") and "names another controller" in problem.message
        path = table(tmp_path / "d.csv", rows[1:])
        plan = await planned(opened, path, operations=tmp_path / "ops.jsonl")
        report = await onboard(opened, plan)
        assert [device.did for device in report.devices] == [
            Create.model_validate(each["operation"]).did() for each in operations[1:]
        ]
        assert report.count(Ended.ONBOARDED) == 4 and not (folder / "devices").exists()
        assert all(device.secrets == () for device in report.devices)
        again = await onboard(opened, await planned(opened, path, operations=tmp_path / "ops.jsonl"))
        assert again.count(Ended.ALREADY) == 4


async def test_one_that_the_ledger_refuses_stops_no_other(tmp_path: Path) -> None:
    """Its controller is gone between the check and the work."""
    folder = tmp_path / "data"
    await founded(folder)
    async with site(folder, ORGS) as opened:
        await add_actor(opened, "agg", "leaver")
        rows = [{**row, "controller": "leaver" if n % 10 == 3 else "owner"} for n, row in enumerate(rows_of(30))]
        path = table(tmp_path / "d.csv", rows)
        plan = await planned(opened, path)
        agg = opened.gateways["agg"]
        leaver = agg.wallet.find("leaver")
        assert leaver is not None
        await agg.desk(leaver.did).do("identity.deactivate", {"did": leaver.did})
        report = await onboard(opened, plan, group=7)
        failed = [device for device in report.devices if device.ended is Ended.FAILED]
        assert [device.name for device in failed] == ["m3", "m13", "m23"] and report.count(Ended.ONBOARDED) == 27
        assert all("deactivated" in device.reason or "inactive" in device.reason for device in failed), failed[0].reason
        assert len(agg.devices) == 27
        later = await planned(opened, path)
        assert {problem.column for problem in later.problems} == {"controller"}


async def test_ten_thousand_rows_are_checked_in_seconds(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    await founded(folder, LWM2M)
    rows = rows_of(10_000, protocol="lwm2m", unsigned="yes")
    path = table(tmp_path / "d.csv", rows)
    async with site(folder, ORGS) as opened:
        began, cpu = time.perf_counter(), time.process_time()
        plan = await planned(opened, path)
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
        print(f"10,000 rows checked in {seconds:.2f} s ({used:.2f} s of CPU), {len(plan.problems)} problems")
        assert plan.count(Step.NEW) == 10_000 and plan.problems == ()
        assert used < 100, "each row is compared with few others"
        assert len(opened.gateways["agg"].devices) == 0 and not (folder / "devices").exists()
