"""The suite's contract in another version: `probe.about` answers differently."""

from conformance.ledger import contract

from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.runtime import Caller, Result, Transaction


def about(ctx: ContractContext, caller: Caller, args: contract.Nothing) -> Result:
    return {"another": 1}


QUERIES = contract.QUERIES
TRANSACTIONS = {**contract.TRANSACTIONS, "probe.about": Transaction("probe.about", contract.Nothing, about)}
