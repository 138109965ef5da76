"""Custody from a received frame to a settlement line on the real journal, windows, ledger and contracts.

Order and settlement events are put on the chain by a probe transaction: what is tested here is the chain of links, the
market itself is tested by its own.
"""

import asyncio
import hashlib
import json
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.chain import ORG, Chain, wall_ms
from support.contracts import NETWORK, Party, sign
from support.readings import signed_payload

from flexrelay.custody import Audit, Check, Custody, CustodyRecord, NoCustody
from flexrelay.custody.check import check_record
from flexrelay.dispatch import DISPATCH, Delivery, DispatchOrder
from flexrelay.ingest.registry import partition_of
from flexrelay.journal import SqliteJournal
from flexrelay.journal.port import Entry, JournalCorrupt
from flexrelay.ledger.embedded import Connection
from flexrelay.outbox import OUTBOX, CommittedIntent, Outbox
from flexrelay.projections import PROJECTIONS, Projections, Views
from flexrelay.relay import Relay
from flexrelay.store import Store
from flexrelay.twin import TWIN, Twin
from flexrelay.windows import WINDOWS, Calendar, Prover, Tampered, Vault, Windows
from flexrelay_contracts.catalogue import TRANSACTIONS
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.runtime import Caller, Transaction
from flexrelay_contracts.state import announce
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.measurement import Measurement
from flexrelay_schemas.model import Model
from flexrelay_schemas.quality import Provenance
from flexrelay_schemas.reading import FUTURE_TOLERANCE_MS, Attestation, SignedAttestation

DAY_MS = 86_400_000


class Told(Model):
    name: str
    payload: dict[str, Any]


def _tell(ctx: ContractContext, caller: Caller, args: Told) -> dict[str, Any]:
    announce(ctx, args.name, args.payload)
    return {}


PROBE = {**TRANSACTIONS, "probe.tell": Transaction("probe.tell", Told, _tell)}


@dataclass
class Rig:
    chain: Chain
    ledger: Connection
    store: Store
    outbox: Outbox
    projections: Projections
    journal: SqliteJournal
    twin: Twin
    windows: Windows
    custody: Custody
    delivery: Delivery
    day: CalendarDay
    device: Party
    observed: list[int]

    async def do(self, intent: bytes) -> CommittedIntent:
        outcome = await asyncio.wait_for(self.outbox.wait(await self.outbox.add(intent)), 60)
        assert isinstance(outcome, CommittedIntent), outcome
        await asyncio.wait_for(self.projections.reached(outcome.block), 60)
        return outcome

    async def tell(self, name: str, **payload: Any) -> CommittedIntent:
        return await self.do(self.chain.intent("probe.tell", {"name": name, "payload": payload}))

    async def anchor(self) -> CommittedIntent:
        await self.windows.close(self.day.end + 1)
        made = await self.windows.anchor(wall_ms())
        assert made is not None
        deadline = wall_ms() + 60_000
        return await self.do(self.chain.gateway.intent("evidence.anchor", made.args(), deadline=deadline))


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    chain = Chain.at(folder)
    components = [OUTBOX, PROJECTIONS, DISPATCH, TWIN, WINDOWS]
    first = before_midnight(wall_ms())
    midnight = first // DAY_MS * DAY_MS
    today = datetime.fromtimestamp(first / 1000, UTC).date()
    day = CalendarDay(date=today.isoformat(), start=midnight, isps=96, isp_seconds=900, working=True)
    async with chain.open(transactions=PROBE) as ledger, Store(folder / "store.db", components) as store:
        outbox, views = Outbox(store, ORG), Views(store, ORG)
        async with (
            Relay(ledger, outbox) as _,
            Projections(ledger, store, ORG) as projections,
            SqliteJournal(folder / "journal.db") as journal,
        ):
            with Vault(folder / "vault.db") as vault:
                twin = await Twin.open(store, lambda did: None)
                windows = await Windows.open(store, vault, Calendar([day]), lambda did, at: True, 0)
                delivery = Delivery(store, ORG)
                custody = Custody(
                    network=NETWORK,
                    org=ORG,
                    journal=journal,
                    twin=twin,
                    store=store,
                    prover=Prover(store, journal, vault, ORG),
                    views=views,
                    ledger=ledger,
                    blocks=chain.ledger,
                    day_of=lambda date: day if date == day.date else None,
                    delivery=delivery,
                )
                device = Party.new("device", chain.operator.did, network=NETWORK)
                made = Rig(
                    chain,
                    ledger,
                    store,
                    outbox,
                    projections,
                    journal,
                    twin,
                    windows,
                    custody,
                    delivery,
                    day,
                    device,
                    [],
                )
                await made.do(chain.intent("identity.register_device", device.proven()))
                await take_readings(made, first)
                yield made


def before_midnight(now: int) -> int:
    """A moment ago from which some readings a second apart, and one more, are of one day."""
    first = now - 10_000
    return first if (first - 1) // DAY_MS == (first + 9_000) // DAY_MS else first - 20_000


async def take_readings(made: Rig, first: int) -> None:
    """Six signed readings and one without a signature, which the gateway attests."""
    entries = []
    for n in range(7):
        at, registers = first + n * 1_000, {"import_j": 1_000 * n, "export_j": 0}
        signed = n < 6
        payload = signed_payload(made.device, at, registers, n) if signed else b'{"import_j": 6000}'
        provenance = Provenance.METER_SIGNED if signed else Provenance.GATEWAY_ATTESTED
        measurement = Measurement(made.device.did, at, registers, n, provenance)
        entry = Entry(0, 1, made.device.did, "mqtt", "dev", "t", wall_ms(), signed, payload, (measurement,))
        entries.append(entry)
        made.observed.append(at)
    await made.journal.append(entries)
    stored = await made.journal.read(0, 100)
    await made.twin.consume(stored)
    await made.windows.consume(stored)


async def with_market(made: Rig) -> tuple[str, int]:
    """An order and its settlement over the readings' interval: (order id, ISP)."""
    isp = made.day.isp_closed_by(made.observed[0])
    order = {
        "order_id": "order-1",
        "auction": "a",
        "aggregator": "did:x",
        "date": made.day.date,
        "isps": [{"isp": isp, "disposition": "requested", "power_w": 1_000, "room_w": 0}],
    }
    await made.tell("congestion.ordered", **order)
    await made.delivery.watch(DispatchOrder.from_event(order, made.day), [made.device.did])
    await made.delivery.consume(await made.journal.read(0, 100))
    line = {"isp": isp, "ordered_j": 1, "actual_j": 2, "net_micro_eur": 3}
    await made.tell("settlement.proposed", settlement="order-1.d1", order_id="order-1", lines=[line])
    await made.tell("settlement.accepted", settlement="order-1.d1")
    return "order-1", isp


def failed(checks: list[Check]) -> list[Check]:
    return [check for check in checks if not check.holds]


async def test_the_whole_chain_by_each_of_its_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        anchored = await made.anchor()
        order_id, isp = await with_market(made)
        by_reading = await made.custody.by_reading(made.device.did, made.observed[0])
        assert by_reading.settlement is not None and by_reading.settlement.line["net_micro_eur"] == 3
        assert by_reading.settlement.status == "accepted"
        found = [
            by_reading,
            await made.custody.by_position(1),
            await made.custody.by_window(made.device.did, made.day.date, isp),
            await made.custody.by_transaction(anchored.tx_id),
            await made.custody.by_order(order_id),
            await made.custody.by_line("order-1.d1", isp),
        ]
        assert found[1] == by_reading == found[3]
        for record in found:
            again = CustodyRecord.model_validate_json(record.model_dump_json())
            checks = await made.custody.verify(again)
            assert failed(checks) == []
            assert {"frame", "evidence", "inclusion", "signature", "journal", "entity", "anchor block"} <= {
                check.link for check in checks
            }
        with pytest.raises(NoCustody):
            await made.custody.by_order("none")
        with pytest.raises(NoCustody):
            await made.custody.by_transaction("0" * 64)
        with pytest.raises(NoCustody, match="ISP 101 is not in"):
            await made.custody.by_line("order-1.d1", 101)


async def test_a_reading_that_the_gateway_attested(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.anchor()
        record = await made.custody.by_position(7)
        assert record.proof is not None
        assert failed(await made.custody.verify(record)) == []
        forged = record.model_copy(update={"frame": record.frame.model_copy(update={"payload": "AAAA"})})
        assert {"frame", "journal"} <= {check.link for check in failed(await made.custody.verify(forged))}


async def test_a_gateways_word_for_a_device_that_was_not_entrusted_to_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.do(made.chain.intent("gateways.withdraw", {"gateway": made.chain.gateway.did}))
        await made.anchor()
        signed, attested = await made.custody.by_position(1), await made.custody.by_position(7)
        assert failed(await made.custody.verify(signed)) == []
        (wrong,) = failed(await made.custody.verify(attested))
        assert wrong.link == "attester" and made.chain.gateway.did in wrong.detail


async def test_a_reading_that_was_anchored_before_its_time(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.anchor()
        record = await made.custody.by_position(1)
        assert record.anchor is not None
        latest = record.reading.observed_at - FUTURE_TOLERANCE_MS
        for market_ms, wrong in ((latest, []), (latest - 1, ["observed"])):
            anchor = record.anchor.model_copy(update={"market_ms": market_ms})
            checks = check_record(record.model_copy(update={"anchor": anchor}))
            assert [check.link for check in failed(list(checks))] == wrong


async def test_before_the_anchor_the_record_ends_early_and_says_so(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        record = await made.custody.by_position(1)
        assert record.proof is None and failed(await made.custody.verify(record)) == []


async def test_any_change_of_a_record_is_noticed(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.anchor()
        await with_market(made)
        record = await made.custody.by_position(1)
        document = record.model_dump(mode="json")
        assert failed(await made.custody.verify(CustodyRecord.model_validate_json(json.dumps(document)))) == []
        for path, value in [
            (("frame", "payload"), "AAAA"),
            (("reading", "registers", "import_j"), 5),
            (("reading", "observed_at"), 5),
            (("reading", "entity", "id"), "urn:x"),
            (("proof", "payload"), "AAAA"),
            (("proof", "salt"), "A" * 22),
            (("proof", "window", "root"), "0" * 64),
            (("anchor", "root"), "0" * 64),
            (("anchor", "market_ms"), 5),
            (("anchor", "block", "tx_id"), "0" * 64),
            (("anchor", "block", "block_hash"), "0" * 64),
            (("order", "body", "date"), "2016-05-20"),
            (("order", "block", "block"), 0),
            (("settlement", "line", "net_micro_eur"), 4),
        ]:
            changed = CustodyRecord.model_validate_json(json.dumps(_set(document, path, value)))
            assert failed(await made.custody.verify(changed)), path


async def test_the_audit_takes_a_frame_of_which_one_reading_has_an_attestation_of_an_earlier_release(
    tmp_path: Path,
) -> None:
    """As it is where a frame's readings lie in two months, and the first month was erased."""
    async with rig(tmp_path) as made:
        did, at, gateway, payload = made.device.did, made.observed[-1] + 1_000, made.chain.gateway, b"two"
        readings = [Measurement(did, at + n, {"import_j": 7_000}, n, Provenance.GATEWAY_ATTESTED) for n in (0, 1)]
        old = Attestation(
            did=did, frame_sha256=hashlib.sha256(payload).hexdigest(), gateway=gateway.did, network=NETWORK,
            key_version=gateway.version, observed_at=at + 1, registers={"import_j": 7_000},
        )  # fmt: skip
        signed = SignedAttestation(attestation=old, signature=sign(gateway.private, old.message()))
        with closing(sqlite3.connect(tmp_path / "vault.db", isolation_level=None)) as file:
            row = (did, at + 1, canonical(signed.model_dump()))
            file.execute("INSERT INTO vault_attestation VALUES (?, ?, ?)", row)
        with Vault(tmp_path / "vault.db") as vault:
            windows = await Windows.open(made.store, vault, Calendar([made.day]), lambda did, at: True, 0)
            entry = Entry(0, partition_of(did), did, "mqtt", "dev", "t", wall_ms(), False, payload, tuple(readings))
            position = await made.journal.append([entry])
            stored = await made.journal.read(position - 1, 100)
            await made.twin.consume(stored)
            await windows.consume(stored)
            report = await Audit(ORG, made.journal, made.store, vault, made.twin, made.ledger).run()
        assert [problem for problem in report.problems if f"entry {position}" in problem] == []


async def test_an_anchor_is_of_the_organisation_that_the_ledger_names(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.anchor()
        document = (await made.custody.by_position(7)).model_dump(mode="json")
        for place in ("proof", "anchor"):
            document = _set(document, (place, "org"), "other")
        checks = await made.custody.verify(CustodyRecord.model_validate_json(json.dumps(document)))
        assert {check.link for check in failed(checks)} == {"anchor block", "anchor time", "attester"}


def _set(document: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    head, *rest = path
    return {**document, head: _set(document[head], tuple(rest), value) if rest else value}


async def test_flipping_a_byte_of_a_stored_reading_fails(tmp_path: Path) -> None:
    """Random bytes of the journal's blobs and of the file that holds them."""
    async with rig(tmp_path) as made:
        await made.anchor()
        kept = await made.custody.by_position(1)
        with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = (tmp_path / "journal.db").read_bytes()
    payload = b64u_decode(kept.frame.payload)
    start, length = whole.find(payload[:40]), len(payload)
    assert start > 0
    chance = random.Random(7)
    for place in [start, start + length - 1, *(start + chance.randrange(length) for _ in range(4))]:
        (tmp_path / "journal.db").write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        async with verifying(tmp_path) as custody:
            assert {check.link for check in failed(await custody.verify(kept))} == {"journal"}, place - start
            with pytest.raises((JournalCorrupt, Tampered)):
                await custody.by_position(1)


@asynccontextmanager
async def verifying(folder: Path) -> AsyncIterator[Custody]:
    chain = Chain.at(folder)
    components = [OUTBOX, PROJECTIONS, DISPATCH, TWIN, WINDOWS]
    async with (
        chain.open(transactions=PROBE) as ledger,
        Store(folder / "store.db", components) as store,
        SqliteJournal(folder / "journal.db") as journal,
    ):
        with Vault(folder / "vault.db") as vault:
            yield Custody(
                network=NETWORK,
                org=ORG,
                journal=journal,
                twin=await Twin.open(store, lambda did: None),
                store=store,
                prover=Prover(store, journal, vault, ORG),
                views=Views(store, ORG),
                ledger=ledger,
                blocks=chain.ledger,
                day_of=lambda date: None,
            )
