"""Collects and verifies custody records from one gateway's parts, by any end of the chain."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flexrelay.custody.anchored import first_reading
from flexrelay.custody.check import (
    Check,
    check_anchor_signature,
    check_record,
    check_signature,
    content_of,
    signer_of,
)
from flexrelay.custody.record import (
    AnchorLink,
    BlockLink,
    CommandLink,
    CustodyRecord,
    FrameLink,
    OrderLink,
    ReadingLink,
    SettlementLink,
)
from flexrelay.dispatch import Delivery, Dispatcher
from flexrelay.journal.port import Journal, JournalCorrupt
from flexrelay.ledger.port import BlockReader, Ledger, LedgerError
from flexrelay.projections import Document, Views
from flexrelay.store import Store
from flexrelay.twin import Twin
from flexrelay.windows import NoProof, Prover
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.encoding import b64u, b64u_decode
from flexrelay_schemas.evidence import InclusionProof
from flexrelay_schemas.intent import SignedIntent
from flexrelay_schemas.intervals import CalendarDay
from flexrelay_schemas.reading import Attestation, Reading


class NoCustody(LookupError):
    """There is no such reading, transaction, order or line at this gateway; the message says which."""


class Custody:
    """One gateway's custody records. `delivery` and `dispatcher` where it has them; `day_of` gives calendar days."""

    def __init__(
        self,
        *,
        network: str,
        org: str,
        journal: Journal,
        twin: Twin,
        store: Store,
        prover: Prover,
        views: Views,
        ledger: Ledger,
        blocks: BlockReader,
        day_of: Callable[[str], CalendarDay | None],
        delivery: Delivery | None = None,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        self._network = network
        self._org = org
        self._journal = journal
        self._twin = twin
        self._store = store
        self._prover = prover
        self._views = views
        self._ledger = ledger
        self._blocks = blocks
        self._day_of = day_of
        self._delivery = delivery
        self._dispatcher = dispatcher

    # --- by any end ---

    async def by_position(self, position: int) -> CustodyRecord:
        """By the frame's place in the journal.

        All of these raise NoCustody, and JournalCorrupt or windows.Tampered when what is stored was changed.
        """
        entry = await self._journal.entry(position)
        if entry is None or not entry.measurements:
            raise NoCustody(f"the journal has no entry {position}")
        return await self._collect(entry.did, entry.measurements[0].observed_at, position)

    async def by_reading(self, did: str, observed_at: int, *, order_id: str = "") -> CustodyRecord:
        """`order_id` where a reading belongs to several orders, or to one that is not linked to it here."""
        position = await self._twin.position_of(did, observed_at)
        if position is None:
            raise NoCustody(f"there is no reading of {did} at {observed_at}")
        return await self._collect(did, observed_at, position, order_id)

    async def by_window(self, did: str, date: str, isp: int, *, order_id: str = "") -> CustodyRecord:
        """The reading that closes the interval."""
        start, end = self._bounds(date, isp)
        found = await self._twin.last(did, start + 1, end)
        if found is None:
            raise NoCustody(f"there is no reading of {did} in {date} ISP {isp}")
        return await self.by_reading(did, found.observed_at, order_id=order_id)

    async def by_transaction(self, tx_id: str) -> CustodyRecord:
        """Of an anchor of this gateway, an order, or a settlement."""
        for event in await self._views.events(tx_id=tx_id):
            payload = event.payload
            match event.name:
                case "evidence.anchored" if payload["org"] == self._org:
                    return await self._by_anchor(payload["anchor_id"])
                case "congestion.ordered":
                    return await self.by_order(payload["order_id"])
                case "settlement.proposed" | "settlement.final":
                    return await self.by_line(payload["settlement"], payload["lines"][0]["isp"])
        raise NoCustody(f"transaction {tx_id} is not an anchor of {self._org}, an order or a settlement")

    async def by_order(self, order_id: str) -> CustodyRecord:
        """The last reading that shows the order's delivery."""
        return await self._by_evidence(order_id, lambda observed_at: True)

    async def by_line(self, settlement: str, isp: int) -> CustodyRecord:
        """A reading that stands behind a settlement's line: the one that closes the interval, of the first of the
        order's meters that this gateway receives; without any, of a device that took part."""
        document = await self._views.document("settlement", settlement)
        if document is None:
            raise NoCustody(f"there is no settlement {settlement}")
        order = await self._order(document.body["order_id"])
        start, end = self._bounds(order.body["date"], isp)
        for did in await self._meters(order.id):
            if found := await self._twin.last(did, start + 1, end):
                return await self.by_reading(did, found.observed_at, order_id=order.id)
        return await self._by_evidence(order.id, lambda observed_at: start < observed_at <= end)

    # --- verifying ---

    async def verify(self, record: CustodyRecord) -> list[Check]:
        """Every check, against the journal, the ledger's blocks and the DID's key log as they are now."""
        checks = list(check_record(record))
        checks.append(await self._check_journal(record))
        checks.append(await self._check_entity(record))
        if record.proof is not None and record.anchor is not None:
            checks.append(await self._check_signature(record.proof, record.anchor))
            checks.append(await self._check_time(record.anchor))
            checks += await self._check_attester(record.proof)
            intent = {"org": record.anchor.org, "anchor_id": record.anchor.anchor_id, "root": record.anchor.root}
            checks.append(await self._check_block("anchor", record.anchor.block, "evidence.anchored", intent))
        if record.order is not None:
            told = {"order_id": record.order.order_id, "isps": record.order.body["isps"]}
            checks.append(await self._check_block("order", record.order.block, "congestion.ordered", told))
        if record.settlement is not None:
            checks.append(await self._check_line(record.settlement))
        return checks

    # --- links ---

    async def _collect(self, did: str, observed_at: int, position: int, order_id: str = "") -> CustodyRecord:
        entry = await self._journal.entry(position)
        if entry is None:
            raise NoCustody(f"journal entry {position} was truncated")
        measurement = next((m for m in entry.measurements if m.observed_at == observed_at), None)
        if measurement is None or entry.did != did:
            raise NoCustody(f"journal entry {position} is not the reading of {did} at {observed_at}")
        entity = await self._entity(did, observed_at)
        frame = FrameLink(
            position=position,
            protocol=entry.protocol,
            credential=entry.credential,
            channel=entry.channel,
            received_at=entry.received_at,
            payload=b64u(entry.payload),
            sha256=hashlib.sha256(entry.payload).hexdigest(),
        )
        reading = ReadingLink(
            did=did,
            observed_at=observed_at,
            registers=dict(measurement.registers),
            provenance=int(measurement.provenance),
            entity=entity,
        )
        base = CustodyRecord(network=self._network, org=self._org, frame=frame, reading=reading)
        try:
            proof = await self._prover.proof(did, observed_at)
        except NoProof:
            return base
        anchor = await self._anchor(proof)
        if anchor is None:
            return base
        order = await self._order_link(position, order_id, proof)
        settlement = None if order is None else await self._settlement_link(order.order_id, proof.window.isp)
        links = {"proof": proof, "anchor": anchor, "order": order, "settlement": settlement}
        return base.model_copy(update=links)

    async def _anchor(self, proof: InclusionProof) -> AnchorLink | None:
        try:
            record = await self._ledger.evaluate("evidence.show", {"org": proof.org, "anchor_id": proof.anchor_id})
        except Refused:
            return None  # handed to the outbox, not in a block yet
        document = await self._views.document("anchor", f"{proof.org}/{proof.anchor_id}")
        if document is None:
            return None
        return AnchorLink(
            org=proof.org,
            anchor_id=proof.anchor_id,
            root=record["root"],
            windows=record["windows"],
            market_ms=record["market_ms"],
            block=await self._block_link(document.first_tx, document.first_block),
        )

    async def _order_link(self, position: int, order_id: str, proof: InclusionProof) -> OrderLink | None:
        if not order_id and self._delivery is not None:
            for linked in await self._delivery.orders_of(position):
                document = await self._order(linked)
                if document.body["date"] == proof.window.date and proof.window.isp in _isps(document):
                    order_id = linked
        if not order_id:
            return None
        document = await self._order(order_id)
        records = [] if self._dispatcher is None else await self._dispatcher.commands(order_id)
        commands = tuple(
            CommandLink(
                command_id=item.command.command_id,
                did=item.command.did,
                parameters=dict(item.command.parameters),
                state=item.state.value,
                confirmed_by=0 if item.confirmation is None else item.confirmation.position,
            )
            for item in records
        )
        body = {name: value for name, value in document.body.items() if name != "activations"}
        block = await self._block_link(document.first_tx, document.first_block)
        return OrderLink(order_id=order_id, body=body, commands=commands, block=block)

    async def _settlement_link(self, order_id: str, isp: int) -> SettlementLink | None:
        """The newest run's line."""
        found = [d for d in await self._views.documents("settlement") if d.body["order_id"] == order_id]
        if not found:
            return None
        newest = max(found, key=lambda document: (document.first_block, document.id))
        line = next((line for line in newest.body["lines"] if line["isp"] == isp), None)
        if line is None:
            return None
        postings = tuple(
            {
                "debit": item.debit,
                "credit": item.credit,
                "micro_eur": item.micro_eur,
                "reason": item.reason,
                "ref": item.ref,
            }
            for item in await self._views.postings(f"{order_id}/{isp}")
        )
        source = None
        async for event in self._views.every("settlement."):
            if event.payload.get("settlement") == newest.id and line in event.payload.get("lines", []):
                source = event
        if source is None:
            return None
        block = await self._block_link(source.tx_id, source.block)
        return SettlementLink(settlement=newest.id, status=newest.status, line=line, postings=postings, block=block)

    async def _block_link(self, tx_id: str, number: int) -> BlockLink:
        block = await self._blocks.block(number)
        found = _transaction(block.transactions, tx_id)
        validation = str(found["validation"]) if found else "absent"
        return BlockLink(
            tx_id=tx_id, block=number, block_hash=block.hash, previous_hash=block.previous_hash, validation=validation
        )

    async def _by_anchor(self, anchor_id: str) -> CustodyRecord:
        first = await first_reading(self._store, anchor_id)
        if first is None:
            raise NoCustody(f"this gateway has no windows under anchor {anchor_id}")
        return await self.by_reading(*first)

    async def _by_evidence(self, order_id: str, wanted: Callable[[int], bool]) -> CustodyRecord:
        await self._order(order_id)
        readings = [] if self._delivery is None else await self._delivery.readings(order_id)
        chosen = [reading for reading in readings if wanted(reading.observed_at)]
        if not chosen:
            raise NoCustody(f"this gateway holds no readings of order {order_id} there")
        last = max(chosen, key=lambda reading: (reading.observed_at, reading.did))
        return await self._collect(last.did, last.observed_at, last.position, order_id)

    async def _meters(self, order_id: str) -> list[str]:
        """The meters that measure the order, by their connections' names; none where the ledger does not tell."""
        try:
            pinned = await self._ledger.evaluate("congestion.order_metering", {"order_id": order_id})
        except Refused:
            return []
        return [did for _, did in sorted(pinned.items()) if did]

    async def _order(self, order_id: str) -> Document:
        document = await self._views.document("order", order_id)
        if document is None:
            raise NoCustody(f"there is no order {order_id}")
        return document

    def _bounds(self, date: str, isp: int) -> tuple[int, int]:
        day = self._day_of(date)
        if day is None:
            raise NoCustody(f"{date} is not in the published calendar")
        try:
            return day.bounds(isp)
        except ValueError as error:
            raise NoCustody(str(error)) from None

    async def _entity(self, did: str, observed_at: int) -> dict[str, Any]:
        """As it stands in a JSON document."""
        found = await self._twin.entities(did, observed_at, observed_at)
        entity: dict[str, Any] = json.loads(json.dumps(found[0])) if found else {}
        return entity

    # --- checks against what is stored ---

    async def _check_journal(self, record: CustodyRecord) -> Check:
        try:
            entry = await self._journal.entry(record.frame.position)
        except JournalCorrupt as error:
            return Check("journal", False, str(error))
        if entry is None:
            return Check("journal", False, f"entry {record.frame.position} is not in the journal any more")
        same = entry.payload == b64u_decode(record.frame.payload) and entry.did == record.reading.did
        return Check("journal", same, f"entry {record.frame.position} holds the frame's bytes")

    async def _check_entity(self, record: CustodyRecord) -> Check:
        reading = record.reading
        history = await self._twin.history(reading.did, reading.observed_at, reading.observed_at)
        entity = await self._entity(reading.did, reading.observed_at)
        same = bool(history) and dict(history[0].registers) == reading.registers and entity == reading.entity
        return Check("entity", same, "the twin's entity is made of the reading's registers")

    async def _check_signature(self, proof: InclusionProof, anchor: AnchorLink) -> Check:
        evidence = b64u_decode(proof.payload)
        try:
            signer = signer_of(content_of(evidence))
            if signer is not None:
                return check_signature(evidence, await self._key(*signer))
            found = await self._transaction(anchor.block)
            if isinstance(found, Check):
                return found
            intent = SignedIntent.model_validate(found["intent"])
            key = await self._key(intent.intent.actor, intent.intent.key_version)
            return check_anchor_signature(intent, anchor, key)
        except (ValueError, Refused, LedgerError) as error:
            return Check("signature", False, f"the signer's key is not known: {error!r}")

    async def _check_time(self, anchor: AnchorLink) -> Check:
        """When the anchor came, which decides whether its readings count, stands in no event: the ledger tells."""
        try:
            told = await self._ledger.evaluate("evidence.show", {"org": anchor.org, "anchor_id": anchor.anchor_id})
        except (Refused, LedgerError) as error:
            return Check("anchor time", False, f"the ledger does not know the anchor: {error!r}")
        same = all(told[name] == getattr(anchor, name) for name in ("root", "windows", "market_ms"))
        return Check("anchor time", same, f"the ledger holds the anchor since {told['market_ms']} (market time)")

    async def _check_attester(self, proof: InclusionProof) -> list[Check]:
        """What a dispute would ask about a reading that its device did not sign: was the gateway whose word it is
        entrusted with the device? The ledger is told of no value."""
        try:
            content = content_of(b64u_decode(proof.payload))
            if isinstance(content, Reading):
                return []
            anchor = {"org": proof.org, "anchor_id": proof.anchor_id}
            args = {**anchor, "device": content.did, "observed_at": content.observed_at}
            args |= {"gateway": content.gateway} if isinstance(content, Attestation) else {}
            told = await self._ledger.evaluate("evidence.attester", args)
        except (ValueError, Refused, LedgerError) as error:
            return [Check("attester", False, f"whether its gateway's word counts is not known: {error!r}")]
        good = f"{told['gateway']} may attest readings of {content.did}"
        return [Check("attester", told["counts"], good if told["counts"] else told["message"])]

    async def _key(self, did: str, version: int) -> str:
        """The Multikey of a version on the ledger. Raises ValueError, Refused, LedgerError."""
        log = await self._ledger.evaluate("identity.log", {"did": did})
        found = [item["key"] for item in log if item["version"] == version]
        if not found:
            raise ValueError(f"{did} has no key version {version}")
        return str(found[0])

    async def _check_line(self, link: SettlementLink) -> Check:
        """The event about the settlement in its block holds the line."""
        payloads = await self._payloads(link.block)
        if isinstance(payloads, Check):
            return payloads
        told = [payload for name, payload in payloads if name.startswith("settlement.")]
        holds = any(
            payload.get("settlement") == link.settlement and link.line in payload.get("lines", []) for payload in told
        )
        return Check("settlement block", holds, f"block {link.block.block} holds the line")

    async def _check_block(self, link: str, at: BlockLink, event: str, expected: Mapping[str, Any]) -> Check:
        payloads = await self._payloads(at)
        if isinstance(payloads, Check):
            return payloads
        holds = any(
            name == event and all(payload.get(key) == value for key, value in expected.items())
            for name, payload in payloads
        )
        return Check(f"{link} block", holds, f"block {at.block} holds transaction {at.tx_id} with {event}")

    async def _payloads(self, at: BlockLink) -> list[tuple[str, Mapping[str, Any]]] | Check:
        """The events of a valid transaction."""
        found = await self._transaction(at)
        return found if isinstance(found, Check) else [(name, payload) for name, payload in found["events"]]

    async def _transaction(self, at: BlockLink) -> Mapping[str, Any] | Check:
        """A valid transaction in its block, whose hash the next block names."""
        link = f"block {at.block}"
        try:
            block = await self._blocks.block(at.block)
            following = await self._blocks.block(at.block + 1) if at.block + 1 < await self._blocks.height() else None
        except LedgerError as error:
            return Check(link, False, str(error))
        if (block.hash, block.previous_hash) != (at.block_hash, at.previous_hash):
            return Check(link, False, "the block's hashes are not those of the record")
        if following is not None and following.previous_hash != block.hash:
            return Check(link, False, f"block {at.block + 1} follows another block")
        found = _transaction(block.transactions, at.tx_id)
        if found is None or found["validation"] != "VALID" or at.validation != "VALID":
            return Check(link, False, f"transaction {at.tx_id} is not valid there")
        return found


def _transaction(transactions: Sequence[Mapping[str, Any]], tx_id: str) -> Mapping[str, Any] | None:
    """The first VALID one of the id, else any."""
    found = [item for item in transactions if item.get("tx_id") == tx_id]
    return next((item for item in found if item["validation"] == "VALID"), found[0] if found else None)


def _isps(order: Document) -> list[int]:
    return [item["isp"] for item in order.body["isps"]]
