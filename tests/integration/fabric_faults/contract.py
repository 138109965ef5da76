"""The real contracts, and one that takes its time."""

import time

from flexrelay_contracts import catalogue
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_schemas.model import Model


class Wait(Model):
    ms: int


def _wait(ctx: ContractContext, caller: Caller, args: Wait) -> Result:
    time.sleep(args.ms / 1000)
    return {"ms": args.ms}


def _waited(ctx: ContractContext, args: Wait) -> object:
    time.sleep(args.ms / 1000)
    return {"ms": args.ms}


TRANSACTIONS = {**catalogue.TRANSACTIONS, "slow.wait": Transaction("slow.wait", Wait, _wait)}
QUERIES = {**catalogue.QUERIES, "slow.waited": Query("slow.waited", Wait, _waited)}
