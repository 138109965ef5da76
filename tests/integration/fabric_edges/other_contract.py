"""The contract in another version: it takes no part in the slowness, and says so."""

from typing import Any

from integration.fabric_edges import contract

from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.runtime import Caller, Result, Transaction


def _wait(ctx: ContractContext, caller: Caller, args: contract.Wait) -> Result:
    return {"ms": args.ms, "waited": 0}


QUERIES = contract.QUERIES
TRANSACTIONS: dict[str, Transaction[Any]] = {
    **contract.TRANSACTIONS,
    "slow.wait": Transaction("slow.wait", contract.Wait, _wait),
}
