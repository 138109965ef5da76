"""The contract that the conformance suite installs: one small function per thing that a contract can do.

`network.bootstrap` writes the few records that the runtime's common checks read.
"""

from typing import Any

from pydantic import Field

from flexrelay_contracts import network
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Caller, Query, Result, Transaction
from flexrelay_contracts.state import key, save
from flexrelay_schemas.model import Items, Model


class Gateway(Model):
    did: str
    key: str
    org: str
    identity: str


class Bootstrap(Model):
    network: str
    operator: dict[str, Any]
    gateways: Items[Gateway]


class Key(Model):
    key: str


class KeyValue(Model):
    key: str
    value: str


class Many(Model):
    items: Items[KeyValue]


class Names(Model):
    names: Items[str]


class Nothing(Model):
    """No arguments."""


class RangeArgs(Model):
    start: str
    end: str
    out: str = ""
    limit: int = 0


class PageArgs(Model):
    start: str
    end: str
    size: int
    bookmark: str = ""


class Private(Model):
    collection: str
    key: str
    out: str = ""


class PolicyArgs(Model):
    key: str
    orgs: Items[str] = Field(default_factory=tuple)
    one_of: Items[str] = Field(default_factory=tuple)


def bootstrap(ctx: ContractContext, caller: Caller, args: Bootstrap) -> Result:
    operation = args.operator["operation"]
    did = {"status": "active", "version": 1, "kind": "actor", "controller": ""}
    save(ctx, key("network"), {"network": args.network})
    save(ctx, key("did", caller.did), {**did, "key": operation["key"]})
    for gateway in args.gateways:
        save(ctx, key("did", gateway.did), {**did, "kind": "gateway", "key": gateway.key})
        save(ctx, key("gateway_identity", gateway.identity), {"gateway": gateway.did, "org": gateway.org})
        save(ctx, key("gateway_grant", gateway.did, caller.did), {"status": "active"})
    return {}


def put(ctx: ContractContext, caller: Caller, args: KeyValue) -> Result:
    ctx.put(args.key, args.value.encode())
    return {"written": args.key}


def put_many(ctx: ContractContext, caller: Caller, args: Many) -> Result:
    for item in args.items:
        ctx.put(item.key, item.value.encode())
    return {}


def delete(ctx: ContractContext, caller: Caller, args: Key) -> Result:
    ctx.delete(args.key)
    return {}


def add(ctx: ContractContext, caller: Caller, args: KeyValue) -> Result:
    """Read, modify, write."""
    old = ctx.get(args.key)
    total = int(old or b"0") + int(args.value)
    ctx.put(args.key, str(total).encode())
    return {"total": total}


def copy(ctx: ContractContext, caller: Caller, args: KeyValue) -> Result:
    """Read `key`, write what was there to the key named in `value`."""
    ctx.put(args.value, ctx.get(args.key) or b"absent")
    return {}


def put_and_read(ctx: ContractContext, caller: Caller, args: KeyValue) -> Result:
    ctx.put(args.key, args.value.encode())
    seen = ctx.get(args.key)
    found = [name for name, _ in ctx.range(args.key, args.key + "\x00")]
    return {"seen": None if seen is None else seen.decode(), "in_range": len(found)}


def count(ctx: ContractContext, caller: Caller, args: RangeArgs) -> Result:
    """Read a range (at most `limit` entries of it, when given) and write how many there were to `out`."""
    number = 0
    for _ in ctx.range(args.start, args.end):
        number += 1
        if number == args.limit:
            break
    ctx.put(args.out, str(number).encode())
    return {"count": number}


def emit(ctx: ContractContext, caller: Caller, args: Names) -> Result:
    for name in args.names:
        ctx.emit(name, f"payload of {name}".encode())
    return {}


def write_then_refuse(ctx: ContractContext, caller: Caller, args: Key) -> Result:
    ctx.put(args.key, b"never")
    ctx.emit("never", b"never")
    raise Refused("no", "the contract says no", "key")


def write_then_fail(ctx: ContractContext, caller: Caller, args: Key) -> Result:
    ctx.put(args.key, b"never")
    raise ValueError("a defect")


def put_empty(ctx: ContractContext, caller: Caller, args: Key) -> Result:
    ctx.put(args.key, b"")
    return {}


def page_then_write(ctx: ContractContext, caller: Caller, args: Key) -> Result:
    ctx.range_page("a", "z", 10)
    ctx.put(args.key, b"never")
    return {}


def private_put(ctx: ContractContext, caller: Caller, args: Private) -> Result:
    ctx.put_private(args.collection, args.key, ctx.transient["value"])
    return {}


def private_copy(ctx: ContractContext, caller: Caller, args: Private) -> Result:
    """Read a private value and write its length to `out`."""
    value = ctx.get_private(args.collection, args.key)
    ctx.put(args.out, str(len(value or b"")).encode())
    return {}


def private_purge(ctx: ContractContext, caller: Caller, args: Private) -> Result:
    ctx.purge_private(args.collection, args.key)
    return {}


def policy(ctx: ContractContext, caller: Caller, args: PolicyArgs) -> Result:
    ctx.set_key_policy(args.key, args.orgs, args.one_of)
    return {}


def about(ctx: ContractContext, caller: Caller, args: Nothing) -> Result:
    creator = {"org": ctx.creator.org, "identity": ctx.creator.identity}
    return {"tx_id": ctx.tx_id, "tx_time": ctx.tx_time, "creator": creator}


def get(ctx: ContractContext, args: Key) -> Any:
    value = ctx.get(args.key)
    return None if value is None else value.decode()


def get_range(ctx: ContractContext, args: RangeArgs) -> Any:
    return [[name, value.decode()] for name, value in ctx.range(args.start, args.end)]


def page(ctx: ContractContext, args: PageArgs) -> Any:
    found = ctx.range_page(args.start, args.end, args.size, args.bookmark)
    return {"keys": [name for name, _ in found.items], "bookmark": found.bookmark}


def private_get(ctx: ContractContext, args: Private) -> Any:
    value = ctx.get_private(args.collection, args.key)
    return None if value is None else value.decode()


def private_hash(ctx: ContractContext, args: Private) -> Any:
    return ctx.get_private_hash(args.collection, args.key)


TRANSACTIONS: dict[str, Transaction[Any]] = {
    t.name: t
    for t in (
        Transaction("network.bootstrap", Bootstrap, bootstrap),
        Transaction("probe.put", KeyValue, put),
        Transaction("probe.put_many", Many, put_many),
        Transaction("probe.delete", Key, delete),
        Transaction("probe.add", KeyValue, add),
        Transaction("probe.copy", KeyValue, copy),
        Transaction("probe.put_and_read", KeyValue, put_and_read),
        Transaction("probe.count", RangeArgs, count),
        Transaction("probe.emit", Names, emit),
        Transaction("probe.write_then_refuse", Key, write_then_refuse),
        Transaction("probe.write_then_fail", Key, write_then_fail),
        Transaction("probe.put_empty", Key, put_empty),
        Transaction("probe.page_then_write", Key, page_then_write),
        Transaction("probe.private_put", Private, private_put),
        Transaction("probe.private_copy", Private, private_copy),
        Transaction("probe.private_purge", Private, private_purge),
        Transaction("probe.policy", PolicyArgs, policy),
        Transaction("probe.about", Nothing, about),
        Transaction("strict.put", KeyValue, put),
    )
}

QUERIES: dict[str, Query[Any]] = {
    q.name: q
    for q in (
        Query("probe.get", Key, get),
        Query("probe.range", RangeArgs, get_range),
        Query("probe.page", PageArgs, page),
        Query("probe.private_get", Private, private_get),
        Query("probe.private_hash", Private, private_hash),
        *(query for query in network.QUERIES if query.name == "network.state_page"),
    )
}
