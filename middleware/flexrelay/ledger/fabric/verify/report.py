"""What a verification of a Fabric channel says."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

MAX_PROBLEMS: Final = 100

Progress = Callable[[int, int], None]
"""Is told (blocks done, blocks in all)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that does not fit: in which block (-1: none), which transaction."""

    message: str
    block: int = -1
    tx_id: str = ""

    def __str__(self) -> str:
        where = f"block {self.block}: " if self.block >= 0 else ""
        return f"{where}{self.message}" + (f" [transaction {self.tx_id}]" if self.tx_id else "")


@dataclass(slots=True)
class Report:
    """What was verified. `transactions` call the network's contracts; `administrative` ones are configurations and the
    lifecycle of contracts. `executed` valid transactions were executed again; `hash_only` ones used private data or
    transient inputs, which are not on the chain. `endorsements` were verified, `state_keys` compared with the peer."""

    peer: str = ""
    height: int = 0
    last_hash: str = ""
    transactions: int = 0
    administrative: int = 0
    endorsements: int = 0
    executed: int = 0
    hash_only: int = 0
    compared_state: bool = False
    state_keys: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def full(self) -> bool:
        """Whether there are so many problems that looking for more is of no use."""
        return len(self.problems) >= MAX_PROBLEMS

    def note(self, message: str, block: int = -1, tx_id: str = "") -> None:
        if not self.full:
            self.problems.append(Problem(message, block, tx_id))
