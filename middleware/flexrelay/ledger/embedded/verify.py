"""Recomputes a ledger from block 0 and compares: hashes, attestations, signatures, validation codes, public
transactions executed again, the state, private values against their hashes. Reads only; a running ledger may be
verified from outside up to the block that its state holds.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from flexrelay.ledger.embedded import envelope as wire
from flexrelay.ledger.embedded import folder as place
from flexrelay.ledger.embedded.block import NO_HASH, Block, BlockFormatError, decode_block
from flexrelay.ledger.embedded.blockfile import OVERHEAD, payloads
from flexrelay.ledger.embedded.engine import Transactions
from flexrelay.ledger.embedded.errors import LedgerCorrupt
from flexrelay.ledger.embedded.genesis import Genesis
from flexrelay.ledger.embedded.identity import creator_bytes, key_identifier, transaction_id
from flexrelay.ledger.embedded.overlay import Overlay
from flexrelay.ledger.embedded.private import PrivateValues
from flexrelay.ledger.embedded.simulation import Simulation, footprint
from flexrelay.ledger.embedded.state import State, StateError, hash_key
from flexrelay.ledger.embedded.validation import Judgement, Policies, Validator
from flexrelay.ledger.port import LedgerError, Validation
from flexrelay_contracts.context import Creator
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import invoke
from flexrelay_schemas.canonical import canonical

_MAX_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not fit: in which file, which block and byte (-1: none), which transaction."""

    file: str
    message: str
    block: int = -1
    offset: int = -1
    tx_id: str = ""

    def __str__(self) -> str:
        where = self.file + (f", block {self.block} at byte {self.offset}" if self.block >= 0 else "")
        return f"{where}: {self.message}" + (f" [transaction {self.tx_id}]" if self.tx_id else "")


@dataclass(slots=True)
class Report:
    """What was verified. `executed` valid transactions were executed again; `hash_only` ones used private data or
    transient inputs, which are not on the chain. `compared_state` is false when there is no state to compare."""

    height: int = 0
    last_hash: str = ""
    transactions: int = 0
    executed: int = 0
    hash_only: int = 0
    private_values: int = 0
    compared_state: bool = False
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(
    folder: Path,
    *,
    transactions: Transactions | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Verify the ledger in `folder`. `progress` is told (bytes read, bytes in all). Contracts default to the catalogue.

    Blocking; nothing in the folder is changed. Raises LedgerError when there is no ledger.
    """
    if transactions is None:
        from flexrelay_contracts.catalogue import TRANSACTIONS

        transactions = TRANSACTIONS
    path = folder / place.BLOCKS
    if not path.exists():
        raise LedgerError(f"{folder} holds no ledger: {place.BLOCKS} is missing")
    report = Report()
    stored = _Stored(folder, report)
    run = _Run(report, transactions, stored)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        run.chain(descriptor, folder, progress)
    finally:
        os.close(descriptor)
        stored.close()
        run.close()
    return report


class _Stored:
    """What the folder's databases hold, read in one snapshot each."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._report = report
        self.state = _read_only(folder / place.STATE)
        self.private = _read_only(folder / place.PRIVATE)
        self.height = 0
        self.hash = b""
        self.damaged = False
        if self.state is not None:
            try:
                self.state.execute("BEGIN")
                row = self.state.execute("SELECT height, hash FROM meta").fetchone()
                self.height, self.hash = row or (0, NO_HASH)
                for (text,) in self.state.execute("PRAGMA quick_check(3)"):
                    if text != "ok":
                        raise sqlite3.DatabaseError(text)
            except sqlite3.Error as error:
                self.damaged = True
                report.problems.append(Problem(place.STATE, f"cannot be read: {error}"))

    def close(self) -> None:
        for database in (self.state, self.private):
            if database is not None:
                database.close()


class _Run:
    """The chain replayed into a temporary state."""

    def __init__(self, report: Report, transactions: Transactions, stored: _Stored) -> None:
        self.report = report
        self._transactions = transactions
        self._stored = stored
        self._state = State("")
        self._private = PrivateValues(":memory:")
        self._gateways: dict[str, str] = {}
        self._genesis: Genesis | None = None
        self._validator: Validator | None = None
        self._secret: bytes | None = None
        self._last_private = -1
        self._at = (0, 0)

    def close(self) -> None:
        self._state.close()
        self._private.close()

    def chain(self, descriptor: int, folder: Path, progress: Callable[[int, int], None]) -> None:
        size = os.fstat(descriptor).st_size
        end = 0
        for number, offset, payload in payloads(descriptor):
            self._at = (number, offset)
            end = offset + len(payload) + OVERHEAD
            try:
                block = decode_block(number, payload)
            except BlockFormatError as error:
                self._problem(f"the block {error}; what follows cannot be checked")
                return
            if block.previous != self._state.last_hash:
                self._problem("the previous hash is not the hash of the block before")
            if number == 0:
                if not self._start(block, folder):
                    return
            else:
                self._block(block)
            if self._stored.height == number + 1:
                self._compare()
            progress(end, size)
            if len(self.report.problems) >= _MAX_PROBLEMS:
                return
        self.report.height, self.report.last_hash = self._state.height, self._state.last_hash.hex()
        if end < size and not _in_use(folder):
            self._at = (self._state.height, end)
            self._problem(f"no whole block stands here, but {size - end} bytes do; what follows cannot be checked")
        if self._stored.height > self._state.height:
            text = f"holds {self._stored.height} blocks, but only {self._state.height} whole ones are in {place.BLOCKS}"
            self.report.problems.append(Problem(place.STATE, text))
        self._compare_private()

    def _start(self, block: Block, folder: Path) -> bool:
        try:
            document, commitment = block.items
            self._genesis = Genesis.model_validate_json(document)
        except ValueError as error:
            self._problem(f"block 0 holds no genesis: {error}")
            return False
        try:
            self._secret = place.operator_secret(folder, create=False)
            if place.commitment(self._secret) != commitment:
                raise LedgerCorrupt("is not the secret that block 0 names")
        except LedgerCorrupt as error:
            self._secret = None
            self.report.problems.append(Problem(place.OPERATOR, str(error)))
        self._gateways = {key: org.name for org in self._genesis.organisations for key in org.gateways}
        self._validator = Validator(Policies(self._genesis), self._state)
        self._state.apply(0, block.hash, {}, {})
        return True

    def _block(self, block: Block) -> None:
        assert self._validator is not None
        judgement = Judgement(block.number, Overlay(self._state))
        for item, code in zip(block.items, block.codes, strict=True):
            self.report.transactions += 1
            try:
                body = self._transaction(item)
            except (ValueError, KeyError, TypeError, LedgerError) as error:
                self._problem(f"a transaction cannot be read: {error}")
                judgement.validations.append(code)
                continue
            tx_id = body["tx_id"]
            found = self._validator.judge_next(judgement, body)
            if found is not code:
                self._problem(f"is recorded as {code.value}, but is {found.value}", tx_id)
            if found is Validation.VALID:
                self._execute_again(judgement, body)
            if body["private"]:
                self._last_private = block.number
            judgement.take(body, found)
        self._state.apply(block.number, block.hash, judgement.first, judgement.changes)

    def _transaction(self, item: bytes) -> wire.Body:
        parts = wire.split(item)
        body = wire.decode_body(parts.body)
        tx_id = body["tx_id"]
        org, multikey = body["creator"]
        if self._secret is not None and wire.attest(self._secret, parts.body) != parts.attestation:
            self._problem("the operator's attestation is not of this body", tx_id)
        if self._gateways.get(multikey) != org:
            self._problem(f"the creator is no gateway of {org}", tx_id)
        if not parts.signed_by_creator(body):
            self._problem("the signature is not the creator's", tx_id)
        if transaction_id(bytes.fromhex(body["nonce"]), creator_bytes(org, multikey)) != tx_id:
            self._problem("the transaction id does not follow from nonce and creator", tx_id)
        return body

    def _execute_again(self, judgement: Judgement, body: wire.Body) -> None:
        """Execute a valid transaction once more: what it read is unchanged, so everything must come out the same."""
        tx_id = body["tx_id"]
        if body["transient"] or body["private_reads"]:
            self.report.hash_only += 1
            return
        assert self._genesis is not None
        org, multikey = body["creator"]
        simulation = Simulation(
            judgement.overlay,
            self._private,
            tx_id=tx_id,
            tx_time=body["timestamp"],
            creator=Creator(org, key_identifier(multikey)),
            transient={},
            members={name: tuple(orgs) for name, orgs in self._genesis.collections.items()},
            endorsing=(),
        )
        try:
            result = invoke(simulation, wire.unb64(body["intent"]), self._transactions)
            simulation.finish()
        except Refused as refused:
            self._problem(f"executed again, it is refused: {refused}", tx_id)
            return
        except Exception as error:
            self._problem(f"executed again, it fails: {type(error).__name__}: {error}", tx_id)
            return
        self.report.executed += 1
        again = footprint(simulation)
        for name, value in again.items():
            if json.loads(json.dumps(value)) != body[name]:
                self._problem(f"executed again, its {name} differ", tx_id)
        if canonical(result).decode() != body["result"]:
            self._problem("executed again, its result differs", tx_id)

    def _compare(self) -> None:
        """The stored state against the one that was replayed up to the same block."""
        database = self._stored.state
        if database is None or self._stored.damaged:
            return
        if self._stored.hash != self._state.last_hash:
            self._differs("its last block's hash differs")
        try:
            rows = database.execute("SELECT key, value, block, tx, policy FROM state ORDER BY key")
            for key, what in _differences(rows, self._state.entries()):
                self._differs(f"key {key!r}: {what}")
            ids = database.execute("SELECT id, block, code FROM tx ORDER BY id")
            for tx_id, what in _differences(ids, self._state.transactions()):
                self._differs(f"transaction {tx_id.hex()}: {what}")
        except (sqlite3.Error, StateError) as error:
            self._differs(f"cannot be read: {error}")
        self.report.compared_state = True

    def _compare_private(self) -> None:
        """Private values against the hashes on the chain; each hash that stands has its value."""
        database = self._stored.private
        if database is None:
            return
        hashes = {key: value for key, value, *_ in self._state.entries() if key.startswith("\U0010ffff".encode())}
        try:
            row = database.execute("SELECT height FROM meta").fetchone()
            if (row[0] if row else 0) <= self._last_private:
                return  # blocks that are not applied yet: opening the ledger does it
            rows = database.execute("SELECT collection, key_hash, key, value FROM private").fetchall()
        except sqlite3.Error as error:
            self.report.problems.append(Problem(place.PRIVATE, f"cannot be read: {error}"))
            return
        for collection, key_hash, key, value in rows:
            on_chain = hashes.pop(hash_key(collection, key_hash).encode(), None)
            if on_chain != wire.digest(value) or wire.digest(key).hex() != key_hash:
                text = f"the value under key hash {key_hash} of {collection} is not the one whose hash is on the chain"
                self.report.problems.append(Problem(place.PRIVATE, text))
            self.report.private_values += 1
        for name in hashes:
            collection, _, key_hash = name.decode()[1:].partition("\x00")
            text = f"the value under key hash {key_hash} of {collection} is missing"
            self.report.problems.append(Problem(place.PRIVATE, text))

    def _differs(self, message: str) -> None:
        if len(self.report.problems) < _MAX_PROBLEMS:
            self.report.problems.append(Problem(place.STATE, message))

    def _problem(self, message: str, tx_id: str = "") -> None:
        self.report.problems.append(Problem(place.BLOCKS, message, *self._at, tx_id))


def _differences(stored: Iterable[tuple[Any, ...]], replayed: Iterable[tuple[Any, ...]]) -> Iterator[tuple[bytes, str]]:
    """(key, what is wrong) of two sorted lists of rows, up to the first place where their keys part."""
    for mine, theirs in zip_longest(stored, replayed):
        if mine == theirs:
            continue
        if mine is None:
            yield theirs[0], "is missing"
            return
        if theirs is None or mine[0] != theirs[0]:
            yield mine[0], "does not follow from the blocks, or stands where another one should"
            return
        yield mine[0], f"holds {mine[1:]!r:.200}, the blocks give {theirs[1:]!r:.200}"


def _read_only(path: Path) -> sqlite3.Connection | None:
    if not path.exists():
        return None
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _in_use(folder: Path) -> bool:
    """Whether a process has the ledger open (and may be writing its next block)."""
    try:
        os.close(place.lock(folder))
    except LedgerError:
        return True
    return False


__all__ = ["Problem", "Report", "verify"]
