"""The network's contracts for tests that move the clock by days: no guard on transactions' timestamps."""

from typing import Final

from flexrelay_chaincode.config import ChaincodeConfig
from flexrelay_chaincode.program import Contracts, Program, wall_clock
from flexrelay_contracts.catalogue import QUERIES, TRANSACTIONS

_AGES_MS: Final = 10**15


def make_program(config: ChaincodeConfig) -> Program:
    return Contracts(TRANSACTIONS, QUERIES, config.model_copy(update={"guard_ms": _AGES_MS}), wall_clock)
