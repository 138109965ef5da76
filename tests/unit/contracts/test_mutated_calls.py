"""Good calls with one changed place, signed by their caller: accepted or refused, never a crash, never half a write."""

import copy
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import pytest
from support.contracts import Party
from support.network import Network, plain_days, rotation

from flexrelay_contracts.catalogue import TRANSACTIONS
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.encoding import b64u

VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**53 - 1, "", "x", "*", "a\x00b", "\U0010ffff", "٣", [], {}, [[]], {"v": 1},
    "did:flexrelay:test:z", "2016-02-30", "z" + "1" * 48, "A" * 86, "f" * 64,
)  # fmt: skip


def calls(net: Network) -> dict[str, tuple[Party, dict[str, Any]]]:
    """One good call of each transaction of the network's core at the present state."""
    dso, owner = net.actor("dso"), net.actor()
    meter, issuer = net.device(owner), net.actor()
    net.connection("c1", dso=dso, owner=owner, congestion_point="cp-calls")
    gone, renewed = net.device(owner), net.device(owner)
    window = {"nbf": net.ledger.now, "exp": net.ledger.now + 10_000}
    net.call(net.operator, "grants.accredit", subject=issuer.did, roles=["brp"], markets=["*"], **window)
    net.enrol(owner, "brp")
    late = owner.intent("gateways.grant", {"gateway": net.gateways["dso"].did}, deadline=net.ledger.now - 1)
    newcomer, gateway = net.adopt(Party.new()), Party.new("gateway")
    record = {"kind": "meter", "connection": "c1", "valid_from": "2016-05-12", "valid_to": "", "supersede": False}
    operation, following = rotation(renewed)
    anchor = {"anchor_id": "a", "root": "0" * 64, "windows": 1, "leaves": 1, "first_ms": 1, "last_ms": 2}
    entry = {**gateway.proven(), "org": "dso", "identity": hashlib.sha256(b"new").hexdigest()}
    return {
        "calendar.publish": (net.operator, {"days": [day.model_dump() for day in plain_days("2016-05-26", 2)]}),
        "identity.register": (newcomer, newcomer.proven() | {"gateway": net.gateways["dso"].did}),
        "identity.register_device": (owner, Party.new("device", owner.did).proven()),
        "identity.rotate": (owner, following.proven(operation)),
        "identity.deactivate": (owner, {"did": gone.did, "reason": "lost"}),
        "grants.accredit": (net.operator, {"subject": owner.did, "roles": ["brp"], "markets": ["m"], **window}),
        "grants.withdraw": (net.operator, {"subject": issuer.did, "accreditor": net.operator.did}),
        "grants.enrol": (owner, {"credential": net.credential(owner, "prosumer")}),
        "grants.revoke": (net.operator, {"subject": owner.did, "role": "brp", "issuer": "*", "reason": ""}),
        "gateways.register": (net.operator, entry),
        "gateways.grant": (owner, {"gateway": net.gateways["agg-a"].did}),
        "gateways.withdraw": (owner, {"gateway": net.gateways["dso"].did}),
        "masterdata.record": (dso, record | {"data": {"device": meter.did}}),
        "intents.void": (net.gateways["dso"], {"intent": b64u(late)}),
        "evidence.anchor": (net.gateways["dso"], anchor),
    }


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for name, item in items:
        yield (*path, name)
        yield from places(item, (*path, name))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at the path."""
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = put(changed[path[0]], path[1:], new)
    return changed


@pytest.fixture(scope="module")
def prepared() -> tuple[Network, dict[str, tuple[Party, dict[str, Any]]]]:
    net = Network.start()
    return net, calls(net)


NAMES = (
    "calendar.publish", "identity.register", "identity.register_device", "identity.rotate", "identity.deactivate",
    "grants.accredit", "grants.withdraw", "grants.enrol", "grants.revoke", "gateways.register", "gateways.grant",
    "gateways.withdraw", "masterdata.record", "intents.void", "evidence.anchor",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_place(prepared: tuple[Network, dict[str, tuple[Party, dict[str, Any]]]], name: str) -> None:
    net, good = prepared
    party, args = good[name]
    before = dict(net.ledger.state)

    def attempt(changed: Any) -> bool:
        ledger = copy.copy(net.ledger)
        ledger.state, ledger.events = dict(before), []
        try:
            ledger.call(party, name, net.creators[net.home[party.did]], **changed)
        except Refused as refused:
            assert refused.code and refused.message
            assert ledger.state == before
            return False
        return True

    assert attempt(args), "the call itself is good"
    chance = random.Random(name)
    everywhere = list(places(args))
    tried = [(path, value) for path in everywhere for value in VALUES]
    accepted = sum(attempt(put(args, path, value)) for path, value in chance.sample(tried, min(len(tried), 150)))
    assert accepted < 75, "most changes matter"
    for missing in args:
        attempt({key: value for key, value in args.items() if key != missing})
    with pytest.raises(Refused, match="invalid_argument"):
        net.ledger.call(party, name, net.creators[net.home[party.did]], **args, more=1)


def test_every_transaction_of_the_core_is_tried() -> None:
    rooms = {"network", "calendar", "identity", "grants", "gateways", "masterdata", "intents", "evidence"}
    core = {name for name in TRANSACTIONS if name.split(".")[0] in rooms}
    assert core - set(NAMES) == {"network.bootstrap", "identity.reinstate"}  # in test_network and test_identity
