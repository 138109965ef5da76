"""The contracts of an organisation that has changed them: whoever is funded gets a little more, or nothing at all."""

import dataclasses

from integration.fabric_faults.contract import QUERIES
from integration.fabric_faults.contract import TRANSACTIONS as REAL

from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.market.accounts import Move
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Result

REFUSED_HERE = "fees:refused-here"
_FUND = REAL["accounts.fund"]


def _fund(ctx: ContractContext, caller: Caller, args: Move) -> Result:
    if args.account == REFUSED_HERE:
        raise Refused("another", "not with this version", "account")
    return _FUND.run(ctx, caller, args.model_copy(update={"micro_eur": args.micro_eur + 1}))


TRANSACTIONS = {**REAL, "accounts.fund": dataclasses.replace(_FUND, run=_fund)}

__all__ = ["QUERIES", "REFUSED_HERE", "TRANSACTIONS"]
