"""Births, deaths and sequence numbers without a broker."""

from __future__ import annotations

from flexrelay_adapters.sparkplug.frame import split
from flexrelay_adapters.sparkplug.nodes import EdgeNode, Nodes, Order
from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Payload

USED = frozenset({"Power"})


def payload(seq: int | None = None, bdseq: int | None = None, **metrics: int) -> Payload:
    made = Payload(timestamp=1)
    if seq is not None:
        made.seq = seq
    if bdseq is not None:
        made.metrics.add(name="bdSeq", long_value=bdseq)
    for name, alias in metrics.items():
        made.metrics.add(name=name, alias=alias, datatype=3)
    return made


def born(nodes: Nodes, name: str = "g/n", seq: int = 0) -> EdgeNode:
    node = nodes.node(name)
    assert node is not None
    nodes.nbirth(node, payload(seq, 1))
    assert nodes.dbirth(node, "d", payload(seq + 1, Power=7))
    assert nodes.order(node, node.devices["d"], payload(seq + 1)) is Order.GOOD
    return node


def made() -> Nodes:
    return Nodes(USED, USED | {"Set"}, max_nodes=2, max_devices=2)


def test_sequence_numbers_go_around_and_a_gap_is_told_once() -> None:
    nodes = made()
    node = born(nodes, seq=253)
    thing = node.devices["d"]
    told = [nodes.order(node, thing, payload(seq)) for seq in (255, 0, 1, 5, 6)]
    assert told == [Order.GOOD, Order.GOOD, Order.GOOD, Order.GAP, Order.GOOD]


def test_a_payload_without_a_number_breaks_no_sequence() -> None:
    nodes = made()
    node = born(nodes)
    thing = node.devices["d"]
    assert nodes.order(node, thing, payload()) is Order.GOOD
    assert nodes.order(node, thing, payload(3)) is Order.GOOD


def test_data_before_the_birth_and_after_the_death_are_unborn() -> None:
    nodes = made()
    node = nodes.node("g/n")
    assert node is not None
    assert nodes.order(node, None, payload(4)) is Order.UNBORN
    born(nodes)
    nodes.ddeath(node, "d")
    assert nodes.order(node, node.devices["d"], payload(2)) is Order.UNBORN


def test_an_old_connections_will_does_not_bury_the_living() -> None:
    nodes = made()
    node = born(nodes)
    assert not nodes.ndeath(node, payload(bdseq=0))
    assert list(nodes.born()) == ["g/n", "g/n/d"]
    assert nodes.ndeath(node, payload(bdseq=1))
    assert list(nodes.born()) == []


def test_a_birth_of_the_node_buries_its_devices() -> None:
    nodes = made()
    node = born(nodes)
    nodes.nbirth(node, payload(0, 2))
    assert list(nodes.born()) == ["g/n"]


def test_what_aliases_mean_outlives_the_connection_but_a_birth_is_asked_for() -> None:
    nodes = made()
    node = born(nodes)
    nodes.forget_connections()
    thing = nodes.thing("g/n/d")
    assert thing is not None and thing.aliases == {7}
    assert nodes.order(node, thing, payload(9)) is Order.UNBORN
    assert nodes.order(node, thing, payload(10)) is Order.GOOD


def test_the_head_of_a_devices_frames_tells_the_used_metrics() -> None:
    nodes = made()
    node = born(nodes)
    nodes.dbirth(node, "d", payload(2, Power=8, Other=9, Set=10))
    assert node.devices["d"].aliases == {8} and node.devices["d"].told["Set"].alias == 10
    birth, names, data = split(node.devices["d"].head + b"rest")
    assert (birth, names.types, names.aliases, data) == (False, {"Power": 3}, {8: "Power"}, b"rest")


def test_there_is_room_for_so_many() -> None:
    nodes = made()
    node = born(nodes)
    assert nodes.dbirth(node, "e", payload(2)) and not nodes.dbirth(node, "f", payload(3))
    assert nodes.dbirth(node, "d", payload(4)), "a known one is born again"
    assert nodes.node("g/m") is not None and nodes.node("g/o") is None and len(nodes) == 2


def test_no_node_takes_the_room_of_the_others() -> None:
    nodes = Nodes(USED, USED, max_nodes=10, max_devices=6)
    greedy, modest = (nodes.node(name) for name in ("g/greedy", "g/modest"))
    assert greedy is not None and modest is not None
    for n in range(6):
        assert nodes.dbirth(greedy, f"d{n}", payload(Power=7))
    assert not nodes.dbirth(greedy, "d6", payload(Power=7)) and nodes.dbirth(greedy, "d0", payload(Power=8))
    assert [nodes.dbirth(modest, f"m{n}", payload(Power=7)) for n in range(4)] == [True, True, True, False]
    assert list(greedy.devices) == ["d3", "d4", "d5"] and not nodes.dbirth(greedy, "d6", payload(Power=7))
    third = nodes.node("g/third")
    assert (
        third is not None
        and nodes.dbirth(third, "t", payload(Power=7))
        and len(modest.devices) + len(greedy.devices) == 5
    )
