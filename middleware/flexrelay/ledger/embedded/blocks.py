"""The blocks of a ledger's folder, read from outside: a process that has the ledger open is not disturbed."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from flexrelay.ledger.embedded import folder as place
from flexrelay.ledger.embedded.block import BlockFormatError, decode_block
from flexrelay.ledger.embedded.blockfile import payload_at, scan
from flexrelay.ledger.embedded.errors import LedgerCorrupt
from flexrelay.ledger.embedded.views import block_view
from flexrelay.ledger.port import BlockView, LedgerError, Validation


class FolderBlocks:
    """The whole blocks that the file held when it was opened. A context manager; blocking.

    `rest` is how many bytes stand behind the last whole block: a block that is being written, or damage.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / place.BLOCKS
        if not path.exists():
            raise LedgerError(f"{folder} holds no ledger: {place.BLOCKS} is missing")
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._offsets, end, size = scan(self._descriptor)
        self.rest = size - end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    @property
    def height(self) -> int:
        return len(self._offsets)

    def view(self, number: int) -> BlockView:
        """Raises LedgerCorrupt for a block whose hashes do not fit, IndexError for one that is not there."""
        offset = self._offsets[number]
        try:
            return block_view(decode_block(number, payload_at(self._descriptor, offset, number)))
        except BlockFormatError as error:
            raise LedgerCorrupt(f"the block {error}", number, offset) from None

    def find(self, tx_id: str) -> int | None:
        """The block of a transaction (of its valid one, where an id was ordered twice); reads all blocks."""
        wanted, found = tx_id.encode(), None
        for number in range(1, self.height):
            if wanted not in payload_at(self._descriptor, self._offsets[number], number):
                continue
            for item in self.view(number).transactions:
                if item["tx_id"] == tx_id:
                    if item["validation"] == Validation.VALID.value:
                        return number
                    found = number
        return found
