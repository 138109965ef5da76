"""Recomputes a channel from block 0 out of one peer's blocks, and compares with what that peer says of it.

Proved by signatures: what was ordered, in which order, what was endorsed and by whom. Computed again: how each
transaction is judged, the state, and what public transactions read, write, announce and answer. Certificates' expiry is
not looked at, and changes of the channel's configuration are taken as the orderers have accepted them.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from flexrelay.ledger.fabric.blocks import is_config, validation_of
from flexrelay.ledger.fabric.errors import Untrusted
from flexrelay.ledger.fabric.ledger import FabricLedger
from flexrelay.ledger.fabric.messages import TRANSACTIONS_FILTER
from flexrelay.ledger.fabric.msp import Trust
from flexrelay.ledger.fabric.profile import Profile
from flexrelay.ledger.fabric.verification import RAFT, block_hash, consensus_of, verify_block
from flexrelay.ledger.fabric.verify.comparison import Comparison
from flexrelay.ledger.fabric.verify.execution import Hidden, Transactions, differences
from flexrelay.ledger.fabric.verify.judging import Judge, Judged, Judgement
from flexrelay.ledger.fabric.verify.policies import ChannelPolicies
from flexrelay.ledger.fabric.verify.report import Progress, Report
from flexrelay.ledger.fabric.verify.world import World
from flexrelay.ledger.port import LedgerError, Validation


async def verify(
    ledger: FabricLedger,
    *,
    transactions: Transactions | None = None,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Verify the channel as the connection's first peer has it; others may go on writing. Contracts default to the
    catalogue. Raises LedgerError when the peer does not answer."""
    async with replayed(ledger, transactions=transactions, progress=progress) as run:
        return run.report


@asynccontextmanager
async def replayed(
    ledger: FabricLedger,
    *,
    transactions: Transactions | None = None,
    progress: Progress = lambda done, total: None,
) -> AsyncIterator["Replay"]:
    """`verify` for those who look at the state that follows from the blocks too."""
    if transactions is None:
        from flexrelay_contracts.catalogue import TRANSACTIONS

        transactions = TRANSACTIONS
    view = ledger.at_peer()
    report = Report(peer=view.name)
    run = Replay(ledger.profile, ledger.trust, transactions, report)
    try:
        height = await view.height()
        await _replay(view, run, 0, height, progress)
        comparison = Comparison(ledger.profile.chaincode, report)
        if report.height == height and not report.full:
            await comparison.read(view)
            grown = await view.height()
            run.comparison = comparison
            await _replay(view, run, height, grown, progress)
            if report.height == grown:
                comparison.finish(run.world)
        yield run
    finally:
        run.close()


async def _replay(view: Any, run: "Replay", start: int, stop: int, progress: Progress) -> None:
    if start >= stop:
        return
    async with aclosing(view.blocks(start, stop - 1)) as blocks:
        async for block in blocks:
            if block.header.number != run.report.height:
                raise LedgerError(
                    f"peer {view.name} gives block {block.header.number} where {run.report.height} is due; a peer that "
                    "began with a snapshot has no older blocks: verify at another one"
                )
            if not await asyncio.to_thread(run.block, block):
                return
            progress(run.report.height, stop)
    if run.report.height < stop:
        last = run.report.height - 1
        run.report.note(f"is the last one that the peer gives, though it says that it has {stop} blocks", last)


class Replay:
    """The chain replayed into a state of its own. Blocking."""

    def __init__(self, profile: Profile, trust: Trust, transactions: Transactions, report: Report) -> None:
        self.report = report
        self.world = World()
        self.comparison: Comparison | None = None
        self._profile = profile
        self._trust = trust
        self._transactions = transactions
        self._judge = Judge(profile.channel, trust, self.world)
        self._hash: bytes | None = None
        self._consensus = RAFT

    def close(self) -> None:
        self.world.close()

    def block(self, block: Any) -> bool:
        """The next block; False when nothing behind it can be checked."""
        number = block.header.number
        try:
            verify_block(block, self._hash, self._trust, self._consensus)
        except Untrusted as error:
            self.report.note(str(error).removeprefix(f"block {number}").lstrip(": "), number)
        if number == 0 or is_config(block):
            try:
                self._judge.policies = ChannelPolicies(block)
                self._consensus = consensus_of(block)
            except (ValueError, Untrusted) as error:
                self.report.note(f"{error}; what follows cannot be checked", number)
                return False
        self._hash = block_hash(block.header)
        self._transactions_of(block, number)
        self.report.height, self.report.last_hash = number + 1, self._hash.hex()
        self.report.endorsements = self._judge.endorsements
        return not self.report.full

    def _transactions_of(self, block: Any, number: int) -> None:
        metadata = block.metadata.metadata
        codes = metadata[TRANSACTIONS_FILTER] if len(metadata) > TRANSACTIONS_FILTER else b""
        judgement = self._judge.begin(number, block.data.data)
        if number and len(codes) != len(judgement.items):
            self.report.note(f"has {len(judgement.items)} transactions, but {len(codes)} validation codes", number)
        for index, item in enumerate(judgement.items):
            found = self._judge.settle(judgement, item)
            told = validation_of(codes[index]) if index < len(codes) else found
            if found is not told:
                why = f" ({item.why})" if item.why else ""
                self.report.note(f"is judged {told.value} by the peer, but is {found.value}{why}", number, item.tx_id)
            self._count(item)
            if found is Validation.VALID and item.call is not None:
                self._execute(judgement, item)
                judgement.take(index, item.call)
        self.world.ids |= {bytes.fromhex(item.tx_id) for item in judgement.items if item.call is not None}
        if self.comparison is not None:
            self.comparison.moved(judgement)
        assert self._hash is not None
        self.world.apply(number, self._hash, judgement.overlays)

    def _count(self, item: Judged) -> None:
        if item.call is not None and item.call.chaincode in self._profile.chaincodes:
            self.report.transactions += 1
        else:
            self.report.administrative += 1

    def _execute(self, judgement: Judgement, item: Judged) -> None:
        call, home = item.call, self._profile.chaincode
        if call is None or call.chaincode not in self._profile.chaincodes:
            return
        entry = self._profile.entry_of(call.function)
        if call.chaincode != entry:
            text = f"{call.function} came in through {call.chaincode}, whose policy is not that of its entry {entry}"
            self.report.note(text, judgement.number, item.tx_id)
        definition = self.world.definition(home)
        members = {} if definition is None else definition.members
        try:
            found = differences(call, call.space(home), judgement.overlay(home), members, self._transactions)
        except Hidden:
            self.report.hash_only += 1
            return
        self.report.executed += 1
        for text in found:
            self.report.note(text, judgement.number, item.tx_id)
