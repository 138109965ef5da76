"""Blocks as events for programs and as pictures for people."""

import json
from collections.abc import Sequence
from typing import Any

from flexrelay.ledger.embedded import envelope as wire
from flexrelay.ledger.embedded.block import Block
from flexrelay.ledger.port import BlockView, ContractEvent, TxEvents, Validation


def transaction_events(
    number: int, bodies: Sequence[wire.Body], validations: Sequence[Validation]
) -> tuple[TxEvents, ...]:
    """What the subscribers of the ledger get of a block."""
    last = len(bodies) - 1
    return tuple(
        TxEvents(
            block=number,
            tx_id=body["tx_id"],
            validation=validation,
            timestamp=body["timestamp"],
            events=tuple(ContractEvent(name, wire.unb64(payload)) for name, payload in body["events"])
            if body["events"] and validation is Validation.VALID
            else (),
            last_in_block=index == last,
        )
        for index, (body, validation) in enumerate(zip(bodies, validations, strict=True))
    )


def bodies_of(block: Block) -> list[wire.Body]:
    """The transactions of a block; block 0 has none."""
    return [wire.decode_body(wire.split(item).body) for item in block.items] if block.number else []


def block_view(block: Block) -> BlockView:
    """A block to be shown: values as text where they are text."""
    transactions = [
        {"validation": code.value, **_readable(body)} for body, code in zip(bodies_of(block), block.codes, strict=True)
    ]
    if block.number == 0:
        transactions = [{"genesis": json.loads(block.items[0]), "operator_commitment": block.items[1].hex()}]
    return BlockView(block.number, block.previous.hex(), block.hash.hex(), transactions)


def _readable(body: wire.Body) -> dict[str, Any]:
    shown: dict[str, Any] = dict(body)
    shown["intent"] = _text(wire.unb64(body["intent"]))
    shown["result"] = json.loads(body["result"])
    shown["writes"] = [[key, None if value is None else _text(wire.unb64(value))] for key, value in body["writes"]]
    shown["events"] = [[name, _text(wire.unb64(payload))] for name, payload in body["events"]]
    return shown


def _text(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode(errors="backslashreplace")
