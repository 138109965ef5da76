"""Everything that a gateway keeps as evidence, recomputed: journal → signatures → leaves → windows → anchors → ledger,
and the twin's copies.

The links of single readings are `Custody.verify`'s; this walks all of them. What the ledger says is taken from its
state, which `flexrelay ledger verify` recomputes.
"""

import asyncio
import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from flexrelay.custody.check import content_of, signer_of
from flexrelay.custody.copies import Copies
from flexrelay.ingest.verification import EntryInvalid, verify_entry
from flexrelay.journal.port import Entry, Journal, JournalCorrupt
from flexrelay.ledger.port import Ledger
from flexrelay.store import Store
from flexrelay.twin import Twin
from flexrelay.windows.vault import Vault, period_of, salt_of
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.rules import merkle
from flexrelay_schemas.evidence import Window

MOST_PROBLEMS: Final = 100
_BATCH: Final = 500
_LEAF: Final = (
    "SELECT l.position, l.since, l.hash FROM window_leaf l JOIN window_device d ON d.id = l.device "
    "WHERE d.did = ? AND l.observed_at = ?"
)
Progress = Callable[[int, int], None]
"""Told (entries done, entries in all)."""


@dataclass(slots=True)
class AuditReport:
    """What was checked.

    `anchored` readings stand under a root on the ledger; `waiting` ones do not yet; `erased` ones lost their salt by
    right; of `truncated` ones only the leaf is left, because the journal's retention is over. `notices`: anchors under
    which this gateway has nothing, because another gateway of the organisation made them, or because a whole folder
    was put back to an older state.
    """

    org: str
    entries: int = 0
    readings: int = 0
    anchored: int = 0
    waiting: int = 0
    erased: int = 0
    truncated: int = 0
    windows: int = 0
    anchors: int = 0
    anchors_waiting: int = 0
    problems: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def problem(self, text: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(text)


class VerifiableJournal(Journal, Protocol):
    async def verify(self) -> int:
        """Recompute the whole hash chain. Raises JournalCorrupt."""
        ...


class Audit:
    """Audits one gateway; changes nothing that is there."""

    def __init__(
        self, org: str, journal: VerifiableJournal, store: Store, vault: Vault, twin: Twin, ledger: Ledger
    ) -> None:
        self._org = org
        self._journal = journal
        self._store = store
        self._twin = twin
        self._vault = vault
        self._ledger = ledger
        self._logs: dict[str, dict[int, str]] = {}

    async def run(self, progress: Progress = lambda done, total: None) -> AuditReport:
        report = AuditReport(self._org)
        try:
            await self._journal.verify()
        except JournalCorrupt as error:
            report.problem(str(error))
        matched = await self._readings(report, progress)
        await self._leaves(report, matched)
        await self._windows(report, await self._anchors(report))
        return report

    async def _readings(self, report: AuditReport, progress: Progress) -> int:
        """Every entry of the journal; how many of its readings have their leaf."""
        first, end = self._journal.begin, self._journal.end
        taken = await self._one("SELECT position FROM window_position")
        position, matched = first - 1, 0
        copies = Copies(self._store, self._twin, report.problem)
        while position < end:
            try:
                entries = await self._journal.read(position, _BATCH)
            except JournalCorrupt as error:
                report.problem(f"{error}; what follows entry {position} was not checked")
                break
            for did in {signer for entry in entries for signer in self._signers(entry)}:
                await self._log_of(did)
            pairs = [(entry.did, item.observed_at) for entry in entries for item in entry.measurements]
            rows = await self._store.read(
                lambda connection, pairs=pairs: [connection.execute(_LEAF, pair).fetchone() for pair in pairs]  # type: ignore[misc]  # the pairs of this turn
            )
            matched += await asyncio.to_thread(self._batch, report, entries, rows, taken)
            await copies.compare(entries)
            position = entries[-1].position
            progress(position - first + 1, end - first + 1)
        else:
            await copies.finish(first)
        return matched

    def _batch(self, report: AuditReport, entries: Sequence[Entry], rows: Sequence[Any], taken: int) -> int:
        matched, leaves = 0, iter(rows)
        for entry in entries:
            report.entries += 1
            evidence = self._vault.evidence(entry)
            try:
                proofs = [data for _, data in evidence]
                verify_entry(entry, self._key(entry, proofs), () if entry.signed else proofs)
            except EntryInvalid as error:
                report.problem(f"journal of {self._org}: {error}")
            for item, data in evidence:
                report.readings += 1
                matched += self._leaf(report, entry, item.observed_at, data, next(leaves), taken)
        return matched

    def _leaf(self, report: AuditReport, entry: Entry, observed_at: int, data: bytes, row: Any, taken: int) -> int:
        """1 when the reading has a leaf."""
        where = f"the reading of {entry.did} at {observed_at} (journal entry {entry.position} of {self._org})"
        month = (entry.did, period_of(observed_at))
        if row is None:
            if entry.position > taken:
                report.waiting += 1
            elif self._vault.secrets([month])[month] is None:
                report.erased += 1
            else:
                report.problem(f"{where} has no leaf in any window")
            return 0
        position, since, digest = row
        secret = self._vault.secrets([month])[month]
        if since == 0:
            report.waiting += 1
        if position != entry.position:
            report.problem(f"{where}: its leaf names entry {position}")
        elif secret is None:
            report.erased += 1
        elif merkle.leaf_hash(salt_of(secret, observed_at, data), data) != digest:
            report.problem(f"{where} does not give its leaf")
        return 1

    async def _leaves(self, report: AuditReport, matched: int) -> None:
        """No leaf without its reading, none beyond the journal's end."""
        begin, end = self._journal.begin, self._journal.end
        query = (
            "SELECT coalesce(sum(position < ?), 0), coalesce(sum(position BETWEEN ? AND ?), 0), "
            "coalesce(sum(position > ?), 0) FROM window_leaf"
        )
        before, within, beyond = await self._store.read(
            lambda connection: connection.execute(query, (begin, begin, end, end)).fetchone()
        )
        report.truncated = before
        if within != matched and not report.problems:
            report.problem(f"{within - matched} leaves of {self._org} have no reading in the journal")
        if beyond:
            report.problem(f"the journal of {self._org} ends at {end}, but {beyond} leaves are of later entries")

    async def _anchors(self, report: AuditReport) -> frozenset[str]:
        """The anchors whose root follows from their windows and stands on the ledger."""
        listed = await self._ledger.evaluate("evidence.list", {"org": self._org})
        on_ledger: dict[str, Mapping[str, Any]] = {record["anchor_id"]: record for record in listed}
        rows, tops = await self._store.read(_select_anchors)
        good = set()
        for anchor_id, root, windows in rows:
            report.anchors += 1
            where = f"anchor {anchor_id} of {self._org}"
            leaves = tops.pop(anchor_id, [])
            if len(leaves) != windows or not leaves or merkle.root(leaves).hex() != root:
                report.problem(f"{where}: its windows do not give its root")
            record = on_ledger.pop(anchor_id, None)
            if record is None:
                report.anchors_waiting += 1
            elif (record["root"], record["windows"]) != (root, windows):
                report.problem(f"{where}: the ledger holds root {record['root']} over {record['windows']} windows")
            else:
                good.add(anchor_id)
        for anchor_id in sorted(tops):
            report.problem(f"windows of {self._org} name an anchor {anchor_id} that is not there")
        for anchor_id in sorted(on_ledger):
            report.notices.append(
                f"the ledger holds anchor {anchor_id} of {self._org}, this gateway has no windows of it"
            )
        return frozenset(good)

    async def _windows(self, report: AuditReport, good: frozenset[str]) -> None:
        for device, did in await self._rows("SELECT id, did FROM window_device ORDER BY did"):
            leaves = await self._rows(
                "SELECT observed_at, since, hash FROM window_leaf WHERE device = ? ORDER BY observed_at", device
            )
            revisions = await self._rows(
                "SELECT start_ms, end_ms, revision, document, leaf, anchor FROM window_revision WHERE device = ?",
                device,
            )
            await asyncio.to_thread(_check_windows, report, did, leaves, revisions, good)

    def _signers(self, entry: Entry) -> list[str]:
        """The DIDs whose keys an entry needs."""
        found = [entry.did]
        for _, data in self._vault.evidence(entry):
            try:
                signer = signer_of(content_of(data))
            except ValueError:
                continue  # verify_entry says what is wrong
            found += [signer[0]] if signer is not None else []
        return found

    def _key(self, entry: Entry, evidence: Sequence[bytes]) -> str:
        """The Multikey that the evidence names, "" where its anchor's signature is the one. Raises EntryInvalid.

        Both forms of attestations stand side by side where a frame's readings lie in two months and one was erased.
        """
        if not evidence:
            raise EntryInvalid(f"entry {entry.position}: there is no reading in it")
        try:
            signer = next((signer for data in evidence if (signer := signer_of(content_of(data))) is not None), None)
        except ValueError as error:
            raise EntryInvalid(f"entry {entry.position}: {error}") from None
        if signer is None:
            return ""
        did, version = signer
        key = self._logs.get(did, {}).get(version)
        if key is None:
            raise EntryInvalid(f"entry {entry.position}: {did} has no key version {version}")
        return key

    async def _log_of(self, did: str) -> None:
        if did not in self._logs:
            try:
                log = await self._ledger.evaluate("identity.log", {"did": did})
            except Refused:
                log = []
            self._logs[did] = {item["version"]: item["key"] for item in log}

    async def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return await self._store.read(lambda connection: connection.execute(query, values).fetchall())

    async def _one(self, query: str) -> int:
        return int((await self._rows(query))[0][0])


def _select_anchors(connection: sqlite3.Connection) -> tuple[list[tuple[str, str, int]], dict[str, list[bytes]]]:
    rows = connection.execute("SELECT id, root, windows FROM window_anchor ORDER BY number").fetchall()
    tops: dict[str, list[bytes]] = {}
    for anchor_id, leaf in connection.execute(
        "SELECT anchor, leaf FROM window_revision WHERE anchor IS NOT NULL ORDER BY anchor, anchor_index"
    ):
        tops.setdefault(anchor_id, []).append(leaf)
    return rows, tops


def _check_windows(
    report: AuditReport,
    did: str,
    leaves: Sequence[tuple[Any, ...]],
    revisions: Sequence[tuple[Any, ...]],
    good: frozenset[str],
) -> None:
    """`leaves` are (observed_at, since, hash) in order of time."""
    instants = [at for at, _, _ in leaves]
    for start, end, revision, document, leaf, anchor in revisions:
        report.windows += 1
        held = leaves[bisect_right(instants, start) : bisect_right(instants, end)]
        inside = [(since, digest) for _, since, digest in held if 1 <= since <= revision]
        where = f"the window of {did} up to {end}, revision {revision}"
        try:
            window = Window.model_validate_json(document)
        except ValueError:
            report.problem(f"{where}: its document is damaged")
            continue
        root = merkle.root([digest for _, digest in inside]).hex() if inside else ""
        if (window.device, window.revision, window.leaves, window.root) != (did, revision, len(inside), root):
            report.problem(f"{where}: its leaves do not give its root")
        if window.leaf_hash() != leaf:
            report.problem(f"{where}: its document does not give its leaf under the anchor")
        fresh = sum(1 for since, _ in inside if since == revision)
        if anchor in good:
            report.anchored += fresh
        else:
            report.waiting += fresh
