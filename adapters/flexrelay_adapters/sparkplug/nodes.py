"""What is known of edge nodes and their devices: births, deaths, sequence numbers. No I/O.

Sparkplug 3.0: a node's messages count 0…255 and around, devices' included; an NDEATH belongs to the birth with the
same bdSeq; with the node's death all its devices are dead.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from flexrelay_adapters.sparkplug.frame import DATA, Told, head
from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Payload

BDSEQ: Final = "bdSeq"
REBIRTH: Final = "Node Control/Rebirth"
_UNBORN: Final = head(DATA)


@dataclass(slots=True)
class Thing:
    """A device, or the edge node itself: what its newest birth has told of the metrics that are used here."""

    told: dict[str, Told] = field(default_factory=dict)
    aliases: frozenset[int] = frozenset()
    """Of what is measured."""
    head: bytes = _UNBORN
    """Stands before its data in a frame."""
    born: bool = False
    births: int = 0


@dataclass(slots=True)
class EdgeNode:
    seq: int | None = None
    """Of its newest message; None before its birth."""
    bdseq: int | None = None
    asked_at: int = 0
    """When a rebirth was asked for last on this connection, UTC ms; 0: never."""
    wanting: bool = False
    """Something of it was missed since its birth."""
    itself: Thing = field(default_factory=Thing)
    devices: dict[str, Thing] = field(default_factory=dict)


class Order(Enum):
    """How a message stands in its node's sequence."""

    GOOD = "good"
    GAP = "gap"
    """Messages before it are missing."""
    UNBORN = "unborn"
    """Its birth is not known."""


class Nodes:
    """`measured` are the metrics that readings are made of, `used` all whose births are remembered; the counts are
    bounded."""

    def __init__(self, measured: frozenset[str], used: frozenset[str], *, max_nodes: int, max_devices: int) -> None:
        self._measured = measured
        self._used = used
        self._max_nodes = max_nodes
        self._max_devices = max_devices
        self._nodes: dict[str, EdgeNode] = {}
        self._devices = 0
        self._greatest = EdgeNode()
        """The node that had the most devices when that was looked for last."""

    def __len__(self) -> int:
        return len(self._nodes)

    def node(self, name: str) -> EdgeNode | None:
        """`name` is group/node. None when it is unknown and there is room for no more."""
        found = self._nodes.get(name)
        if found is None and len(self._nodes) < self._max_nodes:
            found = self._nodes[name] = EdgeNode()
        return found

    def thing(self, credential: str) -> Thing | None:
        """Of group/node or group/node/device; None when it is unknown."""
        group, _, rest = credential.partition("/")
        name, _, device = rest.partition("/")
        node = self._nodes.get(f"{group}/{name}")
        return None if node is None else node.devices.get(device) if device else node.itself

    def born(self) -> Iterator[str]:
        """The credentials of all that lives."""
        for name, node in sorted(self._nodes.items()):
            if node.itself.born:
                yield name
            yield from (f"{name}/{device}" for device, thing in sorted(node.devices.items()) if thing.born)

    def nbirth(self, node: EdgeNode, payload: Payload) -> None:
        node.seq = payload.seq
        node.bdseq = _bdseq(payload)
        node.wanting = False
        self._tell(node.itself, payload)
        self._bury(node)

    def dbirth(self, node: EdgeNode, device: str, payload: Payload) -> bool:
        """False when there is room for no more devices."""
        thing = node.devices.get(device)
        if thing is None:
            if self._devices >= self._max_devices and not self._make_room(node):
                return False
            self._devices += 1
            thing = node.devices[device] = Thing()
        self._tell(thing, payload)
        return True

    def _make_room(self, node: EdgeNode) -> bool:
        """A node with more than its share of the room loses its oldest device to one with less; nobody else does."""
        share = self._max_devices // len(self._nodes)
        if len(node.devices) >= share:
            return False
        if len(self._greatest.devices) <= share:
            self._greatest = max(self._nodes.values(), key=lambda each: len(each.devices))
        del self._greatest.devices[next(iter(self._greatest.devices))]
        self._devices -= 1
        return True

    def ndeath(self, node: EdgeNode, payload: Payload) -> bool:
        """Whether it belongs to the living birth: the will of a connection that was replaced comes late."""
        bdseq = _bdseq(payload)
        if bdseq is not None and node.bdseq is not None and bdseq != node.bdseq:
            return False
        node.itself.born = False
        node.seq = None
        self._bury(node)
        return True

    def ddeath(self, node: EdgeNode, device: str) -> None:
        thing = node.devices.get(device)
        if thing is not None:
            thing.born = False

    def forget_connections(self) -> None:
        """The host was away: what was missed is not known, so every node is asked for its birth when it speaks. What
        aliases mean stays."""
        for node in self._nodes.values():
            node.seq = None
            node.asked_at = 0

    def order(self, node: EdgeNode, thing: Thing | None, payload: Payload) -> Order:
        """Of anything but births and deaths of nodes; counts it in."""
        expected = None if node.seq is None else (node.seq + 1) % 256
        known = node.seq is not None and thing is not None and thing.born
        node.seq = payload.seq if payload.HasField("seq") else None if node.seq is None else expected
        found = Order.UNBORN if not known else Order.GOOD if node.seq == expected else Order.GAP
        node.wanting |= found is not Order.GOOD
        return found

    def _tell(self, thing: Thing, payload: Payload) -> None:
        told = {
            metric.name: Told(metric.alias if metric.HasField("alias") else None, metric.name, metric.datatype)
            for metric in payload.metrics
            if metric.name in self._used
        }
        if told != thing.told or not thing.born:
            thing.told = told
            measured = [each for each in told.values() if each.name in self._measured]
            thing.aliases = frozenset(each.alias for each in measured if each.alias is not None)
            thing.head = head(DATA, measured)
        thing.born = True
        thing.births += 1

    @staticmethod
    def _bury(node: EdgeNode) -> None:
        for thing in node.devices.values():
            thing.born = False


def _bdseq(payload: Payload) -> int | None:
    for metric in payload.metrics:
        if metric.name == BDSEQ:
            return metric.int_value if metric.WhichOneof("value") == "int_value" else metric.long_value
    return None
