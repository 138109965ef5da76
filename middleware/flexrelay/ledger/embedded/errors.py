"""What can be wrong with a ledger folder, beyond the port's own failures."""

from flexrelay.ledger.port import LedgerError


class LedgerCorrupt(LedgerError):
    """Durable data is damaged. `block` and `offset` (bytes in the block file) say where; -1 where there is none."""

    def __init__(self, message: str, block: int = -1, offset: int = -1) -> None:
        where = f" (block {block}, byte {offset} of blocks.dat)" if block >= 0 else ""
        super().__init__(message + where)
        self.block = block
        self.offset = offset


class LedgerLocked(LedgerError):
    """Another process has the folder open."""


class GenesisMismatch(LedgerError):
    """The folder belongs to a network with another genesis."""
