"""Blocks taken apart: order, judgement, events; and what becomes known of a transaction."""

import hashlib

import pytest
from unit.ledger.fabric.world import CHAINCODE, World

from flexrelay.ledger.fabric.blocks import is_config, items_of, transaction_events, validation_of
from flexrelay.ledger.fabric.outcomes import Outcomes
from flexrelay.ledger.fabric.views import block_view
from flexrelay.ledger.port import Committed, ContractEvent, TxEvents, Validation

PREVIOUS = bytes(32)
EVENTS = (("bid", b"one"), ("bid", b"two"))


@pytest.mark.parametrize(
    ("code", "validation"),
    [
        (0, Validation.VALID),
        (9, Validation.DUPLICATE_TXID),
        (10, Validation.ENDORSEMENT_POLICY_FAILURE),
        (11, Validation.MVCC_READ_CONFLICT),
        (12, Validation.PHANTOM_READ_CONFLICT),
        *((code, Validation.INVALID) for code in (*range(1, 9), *range(13, 26), 254, 255)),
    ],
)
def test_fabrics_codes(code: int, validation: Validation) -> None:
    assert validation_of(code) is validation


def test_transactions_come_in_order_with_events_of_the_valid_ones(world: World) -> None:
    proposals = [world.proposal() for _ in range(3)]
    data = [world.envelope(world.endorsed(item, [world.peers["dso"]], events=EVENTS)) for item in proposals]
    block = world.block(4, PREVIOUS, [*data, b"\xff unreadable"], [0, 11, 0, 2])
    found = transaction_events(4, items_of(block), {CHAINCODE})
    said = tuple(ContractEvent(*event) for event in EVENTS)
    assert found == (
        TxEvents(4, proposals[0].tx_id, Validation.VALID, 1_700_000_000_123, said, False),
        TxEvents(4, proposals[1].tx_id, Validation.MVCC_READ_CONFLICT, 1_700_000_000_123, (), False),
        TxEvents(4, proposals[2].tx_id, Validation.VALID, 1_700_000_000_123, said, False),
        TxEvents(4, hashlib.sha256(b"\xff unreadable").hexdigest(), Validation.INVALID, 0, (), True),
    )
    assert transaction_events(4, items_of(block), {"other"})[0].events == ()


def test_a_block_without_codes_proves_nothing(world: World) -> None:
    block = world.block(4, PREVIOUS, [world.envelope(world.endorsed(world.proposal(), [world.peers["dso"]]))], [])
    assert [item.validation for item in items_of(block)] == [Validation.INVALID]


def test_configuration_blocks_are_known(world: World) -> None:
    assert is_config(world.block(0, b"", [world.configuration("etcdraft")], []))
    assert is_config(world.block(3, PREVIOUS, [world.configuration("BFT")], [0]))
    assert is_config(world.block(3, PREVIOUS, [world.configuration("BFT")], [6])), (
        "peers do not judge what orderers did"
    )
    assert not is_config(world.block(3, PREVIOUS, [b"x"], [0]))


def test_a_view_says_who_endorsed_and_whether_it_is_proved(world: World) -> None:
    good, forged = world.proposal((b"submit", b'{"intent":{"function":"bids.make"}}')), world.proposal()
    peers = [world.peers["dso"], world.peers["agga"]]
    fine = world.envelope(world.endorsed(good, peers, b'{"a":1}', EVENTS))
    bad = world.envelope(world.endorsed(forged, peers[:1]).replace(world.peers["dso"].serialized, b"", 0))
    block = world.block(4, PREVIOUS, [fine, bad, b"\xff"], [0, 10, 2])
    view = block_view(block, b"\x01", world.trust, {CHAINCODE})
    first, second, third = view.transactions
    assert (view.number, view.hash, view.previous_hash) == (4, "01", PREVIOUS.hex())
    assert first["function"] == "bids.make"
    assert first["orgs"] == [["agga", "executed"], ["dso", "executed"]]
    assert first["events"] == [["bid", "one"], ["bid", "two"]]
    assert first["result"] == {"a": 1}
    assert first["creator"][0] == "dso"
    assert second["validation"] == "ENDORSEMENT_POLICY_FAILURE"
    assert third["validation"] == "INVALID"


def test_a_view_shows_what_no_parser_takes(world: World) -> None:
    """Another chaincode's arguments may be anything."""
    deep = b"[" * 100_000
    hostile = world.envelope(world.endorsed(world.proposal((b"submit", deep)), [world.peers["dso"]], deep))
    (shown,) = block_view(world.block(4, PREVIOUS, [hostile], [0]), b"\x01", world.trust, {CHAINCODE}).transactions
    assert shown["intent"] == shown["result"] == deep.decode()


def item(tx_id: str, block: int, validation: Validation) -> TxEvents:
    return TxEvents(block, tx_id, validation, 0, (), True)


def test_the_first_appearance_counts_whatever_comes_later() -> None:
    known = Outcomes()
    known.add(5, [item("a", 5, Validation.VALID), item("a", 5, Validation.DUPLICATE_TXID)])
    known.add(6, [item("a", 6, Validation.DUPLICATE_TXID), item("b", 6, Validation.MVCC_READ_CONFLICT)])
    known.add(7, [item("b", 7, Validation.DUPLICATE_TXID)])
    assert known.get("a") == Committed("a", 5, Validation.VALID)
    assert known.get("b") == Committed("b", 6, Validation.MVCC_READ_CONFLICT)
    assert known.get("c") is None


def test_a_duplicate_alone_says_nothing() -> None:
    """The one that counts stands in a block that was not followed."""
    known = Outcomes()
    known.add(9, [item("a", 9, Validation.DUPLICATE_TXID)])
    assert known.get("a") is None
    known.add(4, [item("a", 4, Validation.VALID)])
    assert known.get("a") == Committed("a", 4, Validation.VALID)


def test_outcomes_are_bounded() -> None:
    known = Outcomes(room=3)
    known.add(1, [item(str(number), 1, Validation.VALID) for number in range(5)])
    assert [known.get(str(number)) is not None for number in range(5)] == [False, False, True, True, True]
    assert known.forgotten == 1
    known.add(2, [item("5", 2, Validation.VALID)])
    known.add(3, [item("6", 3, Validation.VALID), item("7", 3, Validation.VALID), item("8", 3, Validation.VALID)])
    assert known.forgotten == 2, "whoever was prepared at block 2 has to ask"
