"""Every transaction type through the shim's context and through the embedded ledger's: same writes, events, refusals.

The contracts' own stories run as they are; each of their transactions is executed by both contexts on the same state
before it is applied.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

import pytest
from support.contracts import MemoryLedger
from support.local_market import Street
from support.network import Network
from unit.chaincode.peer import Message, PeerDouble, Served
from unit.contracts.test_identity import TestEnd as Ends
from unit.contracts.test_imbalance import test_golden_day_with_a_local_trade as imbalance_story
from unit.contracts.test_local_energy import test_a_cancelled_order_gives_everything_back as cancelling_story
from unit.contracts.test_local_energy import test_golden_auction_from_opening_to_settlement as local_story
from unit.contracts.test_market_properties import Replay
from unit.contracts.test_market_properties import test_every_transaction_of_the_market_runs_twice as market_story
from unit.contracts.test_mutated_calls import calls
from unit.contracts.test_positions import (
    test_under_buyer_responsibility_the_ordered_volume_moves_to_the_buyers_brp as correcting_story,
)

from flexrelay.ledger.embedded.simulation import Simulation
from flexrelay.ledger.embedded.state import Entry
from flexrelay_chaincode import wire
from flexrelay_chaincode.context import FabricContext
from flexrelay_chaincode.proposal import Invocation
from flexrelay_chaincode.wire import Announced
from flexrelay_chaincode.writes import key_policy
from flexrelay_contracts.catalogue import TRANSACTIONS
from flexrelay_contracts.context import Creator
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import invoke
from flexrelay_schemas.canonical import canonical, parse

PIECES = [Announced(1000, 1000), Announced(0, 0), Announced(3, 2)]


class _State:
    """The memory ledger's state as the embedded simulation reads it."""

    def __init__(self, ledger: MemoryLedger) -> None:
        self._ledger = ledger

    def get(self, key: str) -> Entry | None:
        value = self._ledger.state.get(key)
        return None if value is None else Entry(value, 1, 0, None)

    def range(self, start: str, end: str) -> Iterator[tuple[str, Entry]]:
        names = sorted(name for name in self._ledger.state if start <= name < end)
        return iter([(name, Entry(self._ledger.state[name], 1, 0, None)) for name in names])

    def policy(self, key: str) -> tuple[str, ...] | None:
        return None


class _Simulation(Simulation):
    """Private values come from the memory ledger; all else is the embedded ledger's."""

    ledger: MemoryLedger

    def get_private(self, collection: str, key: str) -> bytes | None:
        self._may_read(collection)
        return self.ledger.private.get((collection, key))

    def get_private_hash(self, collection: str, key: str) -> str | None:
        self._known(collection)
        value = self.ledger.private.get((collection, key))
        return None if value is None else hashlib.sha256(value).hexdigest()


class _Everyone(dict[str, tuple[str, ...]]):
    """Every collection exists and the caller is a member."""

    def __init__(self, org: str) -> None:
        self._org = org

    def get(self, name: str, default: Any = None) -> tuple[str, ...]:
        return (self._org,)


class _Direct:
    """The peer double without a stream."""

    open = True

    def __init__(self, ledger: MemoryLedger, announced: Announced) -> None:
        self._double = PeerDouble("", write_batch=announced.write_batch, multiple=announced.get_multiple)
        self._double.state, self._double.private = ledger.state, ledger.private
        self.served = Served()

    def ask(self, kind: int, payload: bytes) -> bytes:
        return self._double.serve(Message.Type.Name(kind), payload, self.served)


class Comparison:
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()

    def both(self, ledger: MemoryLedger, intent: bytes, creator: Creator, transient: Mapping[str, bytes]) -> None:
        tx_id = hashlib.sha256(f"{ledger.count + 1}".encode()).hexdigest()
        common: dict[str, Any] = {"members": _Everyone(creator.org)}
        simulation = _Simulation(
            _State(ledger), cast(Any, None), tx_id=tx_id, tx_time=ledger.now, creator=creator, transient=transient,
            endorsing=(creator.org,), **common,
        )  # fmt: skip
        simulation.ledger = ledger
        expected = _end(simulation, intent)
        body = wire.ChaincodeProposalPayload(TransientMap=dict(transient)).SerializeToString()
        invocation = Invocation("market", tx_id, ledger.now, creator, "flexrelay", (), body)
        for announced in PIECES:
            peer = _Direct(ledger, announced)
            ctx = FabricContext(peer, announced, invocation, org=creator.org, read_only=False, **common)
            assert _end(ctx, intent) == expected
            if expected[0] == "result":
                self._same_effects(simulation, ctx, announced, peer)
        if expected[0] == "result":
            self.counts[str(parse(intent)["intent"]["function"])] += 1
        else:
            self.refusals[expected[0]] += 1

    def _same_effects(self, simulation: Simulation, ctx: FabricContext, announced: Announced, peer: _Direct) -> None:
        for kind, payload in ctx.writes.requests(announced):
            peer.ask(kind, payload)
        served = peer.served.result
        assert served.writes == simulation.writes
        private = {(name, key): value for (name, _), (key, value) in simulation.private_writes.items()}
        assert served.private == private
        assert served.policies == {key: key_policy(orgs) for key, orgs in simulation.policies.items()}
        assert ctx.events == simulation.events


def _end(ctx: Any, intent: bytes) -> tuple[str, str]:
    """("result", its JSON), or a refusal's code and field."""
    try:
        result = invoke(ctx, intent, TRANSACTIONS)
        ctx.finish()
        return "result", canonical(dict(result)).decode()
    except Refused as refused:
        return refused.code, refused.field


@pytest.fixture
def comparison(monkeypatch: pytest.MonkeyPatch) -> Comparison:
    """Every transaction of a `MemoryLedger` goes through both contexts first."""
    made, apply = Comparison(), MemoryLedger.run

    def run(
        self: MemoryLedger, intent: bytes, creator: Creator, transient: Mapping[str, bytes] | None = None
    ) -> Mapping[str, Any]:
        made.both(self, intent, creator, dict(transient or {}))
        return apply(self, intent, creator, transient)

    monkeypatch.setattr(MemoryLedger, "run", run)
    return made


def test_every_transaction_type_has_the_same_effects_through_both_contexts(comparison: Comparison) -> None:
    net = Network.start()
    for function, (party, args) in calls(net).items():
        net.call(party, function, **args)
        with suppress(Refused):  # most say no the second time: the codes are compared too
            net.call(party, function, **args)
    market_story(Replay())
    for story in (local_story, cancelling_story, imbalance_story):
        story(Street.start())
    correcting_story()
    Ends().test_events_say_from_when_they_count(Network.start())
    missing = set(TRANSACTIONS) - set(comparison.counts)
    assert not missing, sorted(missing)
    assert sum(comparison.counts.values()) > 100 and len(comparison.refusals) > 3
