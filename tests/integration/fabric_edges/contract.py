"""The real contracts, one that takes its time, and one that handles private values as badly as a contract can."""

import time
from typing import Any

from flexrelay_contracts import catalogue
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_schemas.model import Model

COLLECTION = "dso--agga"


class Wait(Model):
    ms: int


class Kept(Model):
    name: str


class Number(Model):
    number: int


def _wait(ctx: ContractContext, caller: Caller, args: Wait) -> Result:
    time.sleep(args.ms / 1000)
    return {"ms": args.ms}


def _waited(ctx: ContractContext, args: Wait) -> object:
    time.sleep(args.ms / 1000)
    return {"ms": args.ms}


def _keep(ctx: ContractContext, caller: Caller, args: Kept) -> Result:
    ctx.put_private(COLLECTION, args.name, ctx.transient["value"])
    ctx.emit("secret.kept", args.name.encode())
    return {"name": args.name}


def _kept(ctx: ContractContext, args: Kept) -> object:
    value = ctx.get_private(COLLECTION, args.name)
    return None if value is None else value.decode()


def _hash(ctx: ContractContext, args: Kept) -> object:
    return ctx.get_private_hash(COLLECTION, args.name)


def _fail(ctx: ContractContext, caller: Caller, args: Kept) -> Result:
    """A defect: the exception's text is the private value."""
    raise ValueError(ctx.transient["value"].decode())


def _misread(ctx: ContractContext, caller: Caller, args: Kept) -> Result:
    """A defect: the validation error shows its input."""
    Number.model_validate_json(ctx.transient["value"])
    return {}


def _misdecode(ctx: ContractContext, caller: Caller, args: Kept) -> Result:
    """A defect: a KeyError shows its key; raised while another exception with the value is handled."""
    try:
        int(ctx.transient["value"])
    except ValueError:
        return {ctx.transient["value"].decode(): 1}[args.name]  # type: ignore[return-value] # it raises
    return {}


def _refuse(ctx: ContractContext, caller: Caller, args: Kept) -> Result:
    ctx.put_private(COLLECTION, args.name, ctx.transient["value"])
    raise Refused("no", "the contract says no", "name")


TRANSACTIONS: dict[str, Transaction[Any]] = {
    **catalogue.TRANSACTIONS,
    **{
        item.name: item
        for item in (
            Transaction("slow.wait", Wait, _wait),
            Transaction("secret.keep", Kept, _keep),
            Transaction("secret.fail", Kept, _fail),
            Transaction("secret.misread", Kept, _misread),
            Transaction("secret.misdecode", Kept, _misdecode),
            Transaction("secret.refuse", Kept, _refuse),
        )
    },
}
QUERIES: dict[str, Query[Any]] = {
    **catalogue.QUERIES,
    **{
        item.name: item
        for item in (
            Query("slow.waited", Wait, _waited),
            Query("secret.kept", Kept, _kept),
            Query("secret.hash", Kept, _hash),
        )
    },
}
