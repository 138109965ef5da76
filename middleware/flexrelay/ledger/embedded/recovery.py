"""Opening a folder: block 0 or the chain that is there, a torn tail cut, the state brought up to the last block."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from flexrelay.ledger.embedded import envelope as wire
from flexrelay.ledger.embedded import folder as place
from flexrelay.ledger.embedded.block import NO_HASH, Block, BlockFormatError, decode_block, encode_block
from flexrelay.ledger.embedded.blockfile import BlockFile
from flexrelay.ledger.embedded.engine import apply_private
from flexrelay.ledger.embedded.errors import GenesisMismatch, LedgerCorrupt
from flexrelay.ledger.embedded.genesis import Genesis
from flexrelay.ledger.embedded.overlay import Overlay
from flexrelay.ledger.embedded.private import PrivateValues
from flexrelay.ledger.embedded.state import State, StateError
from flexrelay.ledger.embedded.validation import Judgement
from flexrelay.ledger.port import LedgerError


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening found: bytes of a torn last block that were cut off, blocks applied to the state, and whether the
    state had to be made anew."""

    cut_bytes: int = 0
    replayed_blocks: int = 0
    rebuilt_state: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    genesis: Genesis
    blocks: BlockFile
    state: State
    private: PrivateValues
    secret: bytes
    recovery: Recovery


def open_folder(folder: Path, genesis: Genesis | None) -> Opened:
    """Open or create the ledger in `folder`; its lock is held. Raises LedgerError (corrupt, another genesis)."""
    if genesis is None and not any((folder / name).exists() for name in (place.BLOCKS, place.STATE)):
        raise _no_ledger(folder)  # before anything is made: it may be somebody else's folder
    state, rebuilt = _open_state(folder / place.STATE)
    blocks = None
    private = None
    try:
        blocks = BlockFile(folder / place.BLOCKS, applied=state.height)
        secret = place.operator_secret(folder, create=blocks.height == 0)
        if blocks.height == 0:
            if genesis is None:
                raise _no_ledger(folder)
            items = (genesis.encode(), place.commitment(secret))
            blocks.append(encode_block(0, NO_HASH, (), items)[0])
            place.sync_folder(folder)
        first = _block(blocks, 0)
        found = _genesis(first, secret)
        if genesis is not None and genesis != found:
            raise GenesisMismatch(f"{folder} belongs to another genesis: {_difference(genesis, found)}")
        private = PrivateValues(folder / place.PRIVATE)
        if private.height > blocks.height:
            raise LedgerCorrupt(
                f"{place.PRIVATE} has seen {private.height} blocks, but there are only {blocks.height}: acknowledged "
                "blocks were cut off; restore the block file from a copy",
                blocks.height,
                blocks.end,
            )
        before = state.height
        replay(blocks, state, private)
        recovery = Recovery(blocks.cut, state.height - before, rebuilt)
        return Opened(found, blocks, state, private, secret, recovery)
    except BaseException:
        for part in (state, blocks, private):
            if part is not None:
                part.close()
        raise


def _no_ledger(folder: Path) -> GenesisMismatch:
    return GenesisMismatch(f"{folder} holds no ledger yet: a genesis is needed to make one")


def replay(blocks: BlockFile, state: State, private: PrivateValues) -> None:
    """Apply the blocks that the state does not hold. Raises LedgerCorrupt."""
    if state.height and _block(blocks, state.height - 1).hash != state.last_hash:
        raise LedgerCorrupt(
            "the block is not the one that was applied", state.height - 1, blocks.offset(state.height - 1)
        )
    while state.height < blocks.height:
        number = state.height
        block = _block(blocks, number)
        if block.previous != state.last_hash:
            raise LedgerCorrupt("the previous hash is not the previous block's", number, blocks.offset(number))
        judgement = Judgement(number, Overlay(state))
        bodies = [wire.decode_body(wire.split(item).body) for item in block.items] if number else []
        for body, code in zip(bodies, block.codes, strict=True):
            judgement.take(body, code)
        apply_private(private, number, bodies, judgement)
        try:
            state.apply(number, block.hash, judgement.first, judgement.changes)
        except StateError as error:
            raise LedgerError(f"block {number} cannot be applied: {error}") from error


def _open_state(path: Path) -> tuple[State, bool]:
    """The state and whether a damaged one was thrown away (it is derived from the blocks)."""
    try:
        return State(path), False
    except StateError:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return State(path), True


def _block(blocks: BlockFile, number: int) -> Block:
    try:
        return decode_block(number, blocks.read(number))
    except BlockFormatError as error:
        raise LedgerCorrupt(f"the block {error}", number, blocks.offset(number)) from error


def _genesis(block: Block, secret: bytes) -> Genesis:
    try:
        document, commitment = block.items
        genesis = Genesis.model_validate_json(document)
    except (ValueError, ValidationError) as error:
        raise LedgerCorrupt(f"block 0 holds no genesis: {error}", 0, 0) from error
    if commitment != place.commitment(secret):
        raise LedgerCorrupt(f"{place.OPERATOR} is not the secret that block 0 names", 0, 0)
    return genesis


def _difference(given: Genesis, found: Genesis) -> str:
    for name in Genesis.model_fields:
        if getattr(given, name) != getattr(found, name):
            return f"{name} differs"
    return "it differs"
