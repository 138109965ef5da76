"""Proofs: a reading's evidence bytes, its salt and the two paths up to an anchored root; checked anywhere."""

import sqlite3
from typing import Any

from flexrelay.journal.port import Journal
from flexrelay.store import Store
from flexrelay.windows.vault import Vault
from flexrelay_contracts.rules import merkle
from flexrelay_schemas.encoding import b64u, b64u_decode
from flexrelay_schemas.evidence import InclusionProof, Path, Window


class NoProof(Exception):
    """There is no proof (yet): no such reading, its window is still open, or not anchored."""


class Tampered(Exception):
    """What is stored does not give the hash that was taken of it; the message names the place."""


class BadProof(Exception):
    """The proof does not lead to the anchored root."""


class Prover:
    """Makes proofs from the windows' store, the journal and the vault of one organisation's gateway."""

    def __init__(self, store: Store, journal: Journal, vault: Vault, org: str) -> None:
        self._store = store
        self._journal = journal
        self._vault = vault
        self._org = org

    async def proof(self, did: str, observed_at: int, revision: int = 0) -> InclusionProof:
        """The proof of the reading in the first revision that holds it, or in a later one.

        Raises NoProof, Tampered, vault.Erased, and the journal's errors.
        """
        found = await self._store.read(lambda connection: _gather(connection, did, observed_at, revision))
        position, digest, in_window, document, in_anchor, anchor_id = found
        evidence = await self.evidence(did, observed_at, position)
        salt = self._vault.salt(did, observed_at, evidence)
        if merkle.leaf_hash(salt, evidence) != digest:
            raise Tampered(f"the reading of {did} at {observed_at} (journal {position}) does not give its leaf")
        window = Window.model_validate_json(document)
        proof = InclusionProof(
            payload=b64u(evidence),
            salt=b64u(salt),
            in_window=in_window,
            window=window,
            in_anchor=in_anchor,
            org=self._org,
            anchor_id=anchor_id,
        )
        if not merkle.verify_document(digest, in_window, window.root):
            raise Tampered(f"the leaves of {did}, {window.date} ISP {window.isp} do not give the window's root")
        return proof

    async def evidence(self, did: str, observed_at: int, position: int) -> bytes:
        """The evidence bytes of a reading: the device's signed payload, or the gateway's attestation."""
        entry = await self._journal.entry(position)
        if entry is None:
            raise NoProof(f"journal entry {position} was truncated: the evidence's retention is over")
        for item, data in self._vault.evidence(entry):
            if entry.did == did and item.observed_at == observed_at:
                return data
        raise Tampered(f"journal entry {position} is not the reading of {did} at {observed_at}")


def check_proof(proof: InclusionProof, root: str, windows: int) -> bytes:
    """The evidence bytes, when the proof leads to the anchor's `root` (hex) over `windows` windows. Raises BadProof.

    Needs nothing but the anchor's record; whose signature the evidence bears is for the caller to check, and whether
    the reading counts (when it was observed, who may attest it) for the ledger: `evidence.check`.
    """
    try:
        payload, salt = b64u_decode(proof.payload), b64u_decode(proof.salt)
        leaf = merkle.leaf_hash(salt, payload)
    except ValueError as error:
        raise BadProof(str(error)) from None
    if proof.in_window.size != proof.window.leaves:
        raise BadProof(f"the path is of {proof.in_window.size} leaves, the window has {proof.window.leaves}")
    if not merkle.verify_document(leaf, proof.in_window, proof.window.root):
        raise BadProof("the reading does not stand under the window's root")
    if proof.in_anchor.size != windows:
        raise BadProof(f"the path is of {proof.in_anchor.size} windows, the anchor has {windows}")
    if not merkle.verify_document(proof.window.leaf_hash(), proof.in_anchor, root):
        raise BadProof("the window does not stand under the anchor's root")
    return payload


def _gather(
    connection: sqlite3.Connection, did: str, observed_at: int, revision: int
) -> tuple[int, bytes, Path, str, Path, str]:
    where = f"{did} at {observed_at}"
    leaf = connection.execute(
        "SELECT l.device, l.position, l.since, l.hash FROM window_leaf l JOIN window_device d ON d.id = l.device "
        "WHERE d.did = ? AND l.observed_at = ?",
        (did, observed_at),
    ).fetchone()
    if leaf is None:
        raise NoProof(f"there is no reading of {where}")
    device, position, since, digest = leaf
    if since == 0:
        raise NoProof(f"the window of {where} is not closed yet")
    row: Any = connection.execute(
        "SELECT start_ms, end_ms, revision, document, anchor, anchor_index FROM window_revision WHERE device = ? "
        "AND end_ms >= ? AND start_ms < ? AND revision = ?",
        (device, observed_at, observed_at, max(revision, since)),
    ).fetchone()
    if row is None or row[4] is None:
        raise NoProof(f"revision {max(revision, since)} of the window of {where} is not anchored")
    start, end, chosen, document, anchor, anchor_index = row
    leaves = connection.execute(
        "SELECT observed_at, hash FROM window_leaf WHERE device = ? AND observed_at > ? AND observed_at <= ? "
        "AND since BETWEEN 1 AND ? ORDER BY observed_at",
        (device, start, end, chosen),
    ).fetchall()
    index = [row[0] for row in leaves].index(observed_at)
    tops = [
        row[0]
        for row in connection.execute(
            "SELECT leaf FROM window_revision WHERE anchor = ? ORDER BY anchor_index", (anchor,)
        )
    ]
    in_window = merkle.document([row[1] for row in leaves], index)
    return position, digest, in_window, document, merkle.document(tops, anchor_index), anchor
