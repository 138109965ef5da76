"""What is known of transactions from the blocks that were followed."""

from collections import OrderedDict
from collections.abc import Collection
from typing import Final

from flexrelay.ledger.port import Committed, TxEvents, Validation


class Outcomes:
    """How transactions ended, by id: the first appearance counts. Bounded; the oldest are forgotten."""

    ROOM: Final = 20_000

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._found: OrderedDict[str, Committed] = OrderedDict()
        self.forgotten = -1
        """The newest block of which a transaction was forgotten: of later ones all that were followed are known."""

    def add(self, number: int, items: Collection[TxEvents]) -> None:
        for item in items:
            known = self._found.get(item.tx_id)
            if known is not None and (known.validation is Validation.VALID or known.block <= number):
                continue
            self._found[item.tx_id] = Committed(item.tx_id, number, item.validation)
        while len(self._found) > self._room:
            _, oldest = self._found.popitem(last=False)
            self.forgotten = max(self.forgotten, oldest.block)

    def get(self, tx_id: str) -> Committed | None:
        found = self._found.get(tx_id)
        return None if found is None or found.validation is Validation.DUPLICATE_TXID else found
