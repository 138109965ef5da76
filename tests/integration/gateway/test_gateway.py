"""A whole gateway on a real embedded ledger: custody of a reading, revocation, and going on after a restart."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from support.site import operator_desk, publish_today, put, register_device, site, until

from flexrelay.app import Gateway, _FleetPlan
from flexrelay.config import BatteryConfig
from flexrelay.dispatch import DispatchOrder, OrderedIsp, Planned
from flexrelay.market.desk import Desk
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.quality import Notice
from flexrelay_sdk import CommandState, Outcome
from flexrelay_sdk.clock import wall_ms


async def test_a_reading_gets_from_the_sink_to_an_anchored_proof(tmp_path: Path) -> None:
    async with site(tmp_path) as opened:
        gateway = opened.gateways["dso"]
        await publish_today(gateway)
        device = await register_device(gateway, operator_desk(gateway), "m1")
        at = gateway.market_now() // 900_000 * 900_000
        receipts = await put(gateway, device.frame(at - 900_000, 1, import_j=5, export_j=0))
        receipts += await put(gateway, device.frame(at, 2, import_j=900, export_j=0))
        assert [receipt.outcome for receipt in receipts] == [Outcome.STORED, Outcome.STORED]

        async def consumed() -> bool:
            return gateway.windows.position == gateway.twin.position == gateway.journal.end

        await until(consumed)
        newest = await gateway.twin.newest(device.did)
        assert newest is not None and newest.registers["import_j"] == 900
        for entry in await gateway.anchoring.step():
            await gateway.outbox.wait(entry)

        async def anchored() -> bool:
            return len(await gateway.views.documents("anchor")) > 0

        await until(anchored)
        record = await gateway.custody.by_reading(device.did, at)
        checks = await gateway.custody.verify(record)
        assert record.anchor is not None
        assert {check.link for check in checks} >= {"frame", "evidence", "inclusion", "signature", "journal"}
        assert all(check.holds for check in checks), checks


async def test_a_reading_that_comes_late_says_so_everywhere(tmp_path: Path) -> None:
    async with site(tmp_path) as opened:
        gateway = opened.gateways["dso"]
        await publish_today(gateway)

        async def dated() -> bool:
            return gateway.calendar.interval(gateway.market_now()) is not None

        await until(dated)
        device = await register_device(gateway, operator_desk(gateway), "m1")
        due = gateway.windows.due_until(gateway.market_now())
        await put(gateway, device.frame(due, 1, import_j=5))
        assert (await gateway.journal.read(0, 1))[0].measurements[0].notice is Notice.LATE

        async def consumed() -> bool:
            return gateway.twin.position == gateway.journal.end

        await until(consumed)
        (entity,) = await gateway.twin.entities(device.did, due, due)
        assert entity["totalActiveEnergyImport"]["quality"]["notices"]["value"] == ["late"]
    async with site(tmp_path) as opened:  # a gateway that starts knows the calendar before its adapters do
        gateway = opened.gateways["dso"]
        await put(gateway, device.frame(due - 1, 0, import_j=4))
        assert Notice.LATE in (await gateway.journal.read(1, 1))[0].measurements[0].notice


async def test_a_revoked_device_is_refused_from_its_block_on(tmp_path: Path) -> None:
    async with site(tmp_path) as opened:
        gateway = opened.gateways["dso"]
        desk = operator_desk(gateway)
        device = await register_device(gateway, desk, "m1")
        other = await register_device(gateway, desk, "m2")
        now = gateway.market_now()
        assert (await put(gateway, device.frame(now - 2000, 1, import_j=1)))[0].outcome is Outcome.STORED
        done = await desk.do("identity.deactivate", {"did": device.did})
        await gateway.projections.reached(done.block)
        refused, taken = await put(
            gateway, device.frame(now - 1000, 2, import_j=2), other.frame(now - 1000, 1, import_j=2)
        )
        assert (refused.outcome, refused.reason) == (Outcome.DEAD_LETTER, "device_deactivated")
        assert taken.outcome is Outcome.STORED
        assert gateway.revocation.count == 1
        assert 0 <= gateway.revocation.greatest_lag_ms < 60_000
        letters = await gateway.journal.letters()
        assert [(letter.did, letter.reason) for letter in letters] == [(device.did, "device_deactivated")]
        batteries = [BatteryConfig(device=name, connection=name, rated_w=9, capacity_wh=9) for name in ("m1", "m2")]
        plan = _FleetPlan(batteries, gateway.devices, gateway.registry, gateway.clock)
        order = DispatchOrder("order-1", "agg", (OrderedIsp(1, now, now + 900_000, 5),))
        assert [planned.did for planned in plan.commands(order)] == [other.did]
        given = Planned(device.did, "m1", "set_power", {"power_w": 5}, 0, 2**52)
        await gateway.dispatcher.accept(order, [given])  # planned before the revocation
        async with asyncio.timeout(60):
            (command,) = await gateway.dispatcher.finished(order.order_id)
        assert (command.state, command.detail) == (CommandState.FAILED, f"{device.did} is deactivated")


async def test_a_revoked_actor_s_intents_are_refused(tmp_path: Path) -> None:
    async with site(tmp_path) as opened:
        gateway = opened.gateways["dso"]
        did = await _actor(gateway, "somebody")
        desk = gateway.desk(did)
        device = await register_device(gateway, desk, "m1")
        await desk.do("identity.deactivate", {"did": did})
        with pytest.raises(Refused, match="did_inactive"):
            await desk.do("identity.deactivate", {"did": device.did})


async def test_a_restart_goes_on_with_what_is_there(tmp_path: Path) -> None:
    async with site(tmp_path) as opened:
        gateway = opened.gateways["dso"]
        device = await register_device(gateway, operator_desk(gateway), "m1")
        now = wall_ms()
        first = await put(gateway, device.frame(now - 3000, 1, import_j=7))
        block = gateway.projections.block
    async with site(tmp_path) as opened:
        gateway = opened.gateways["dso"]
        assert gateway.projections.block >= block
        assert [record.name for record in gateway.devices] == ["m1"]
        again, lower, more = await put(
            gateway,
            device.frame(now - 3000, 1, import_j=7),
            device.frame(now - 2000, 2, import_j=6),
            device.frame(now - 1000, 3, import_j=8),
        )
        assert again.outcome is Outcome.DUPLICATE
        assert (lower.outcome, lower.reason) == (Outcome.DEAD_LETTER, "register_backwards")
        assert more.position == first[0].position + 1


async def test_twin_and_windows_wait_for_room_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexrelay.app.RETRY_S", 0.01)
    async with site(tmp_path) as opened:
        gateway = opened.gateways["dso"]
        device = await register_device(gateway, operator_desk(gateway), "m1")

        async def consumed() -> bool:
            return gateway.windows.position == gateway.twin.position == gateway.journal.end

        def full(connection: sqlite3.Connection) -> None:
            connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")

        now = gateway.market_now()
        for fill, room in (
            (lambda: gateway.store._writer._connection, "store"),  # type: ignore[union-attr]  # it is open
            (lambda: gateway.prover._vault._connection, "vault"),
        ):
            full(fill())
            first = gateway.journal.end
            frames = [device.frame(now - 900 + first + n, first + n, import_j=first + n) for n in range(1, 400)]
            receipts = await put(gateway, *frames)
            assert all(receipt.outcome is Outcome.STORED for receipt in receipts), room
            await asyncio.sleep(0.2)
            fill().execute("PRAGMA max_page_count = 1000000")
            await until(consumed)
        assert (await gateway.windows.counts())["leaves"] == gateway.journal.end


async def test_two_organisations_share_the_ledger_but_not_their_readings(tmp_path: Path) -> None:
    async with site(tmp_path, ("dso", "agg-a")) as opened:
        dso, other = opened.gateways["dso"], opened.gateways["agg-a"]
        device = await register_device(dso, operator_desk(dso), "m1")
        await other.projections.reached(dso.projections.block)
        await put(dso, device.frame(wall_ms() - 1000, 1, import_j=1))
        assert (dso.journal.end, other.journal.end) == (1, 0)
        assert {identity.did for identity in await other.views.identities("device")} == {device.did}
        mine = await _actor(dso, "somebody")
        foreign = other_desk(other, dso, mine)
        with pytest.raises(Refused, match="gateway_grant"):
            await foreign.do("identity.deactivate", {"did": mine})


async def _actor(gateway: Gateway, label: str) -> str:
    """An actor that has granted this gateway, and no other, the carriage of its intents."""
    identity = gateway.wallet.create(gateway.network, "actor", label=label)
    proven = await gateway.wallet.proven(identity.did)
    await gateway.desk(identity.did).do("identity.register", {**proven, "gateway": gateway.signer.did})
    return identity.did


def other_desk(carrier: Gateway, home: Gateway, did: str) -> Desk:
    """An actor's desk whose intents another organisation's gateway would carry."""
    return Desk(home.wallet.signer(did), home.network, carrier.outbox, wall_ms)
