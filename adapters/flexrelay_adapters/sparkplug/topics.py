"""Sparkplug's topics: spBv1.0/group/type/node[/device], and the host's STATE."""

from typing import Final, NamedTuple

from flexrelay_adapters.mqtt.topics import MAX_TOPIC

NAMESPACE: Final = "spBv1.0"
NODE_MESSAGES: Final = ("NBIRTH", "NDATA", "NDEATH")
DEVICE_MESSAGES: Final = ("DBIRTH", "DDATA", "DDEATH")


class Address(NamedTuple):
    """Whom a message is from. `device` is "" for the edge node itself."""

    group: str
    kind: str
    node: str
    device: str

    @property
    def of_node(self) -> str:
        return f"{self.group}/{self.node}"

    @property
    def credential(self) -> str:
        """What names the device here: group/node, or group/node/device."""
        return f"{self.group}/{self.node}/{self.device}" if self.device else f"{self.group}/{self.node}"


def address_of(topic: str) -> Address | None:
    """None for a topic that is none of births, data and deaths, or too long."""
    levels = topic.split("/")
    if len(levels) not in (4, 5) or levels[0] != NAMESPACE or not all(levels) or len(topic) > MAX_TOPIC:
        return None
    kinds = NODE_MESSAGES if len(levels) == 4 else DEVICE_MESSAGES
    return (
        Address(levels[1], levels[2], levels[3], levels[4] if len(levels) == 5 else "") if levels[2] in kinds else None
    )


def filters(groups: tuple[str, ...] | None, host_id: str) -> list[str]:
    """What is subscribed to."""
    found = [state_topic(host_id)]
    for group in groups or ("+",):
        found += [f"{NAMESPACE}/{group}/{kind}/+" for kind in NODE_MESSAGES]
        found += [f"{NAMESPACE}/{group}/{kind}/+/+" for kind in DEVICE_MESSAGES]
    return found


def state_topic(host_id: str) -> str:
    return f"{NAMESPACE}/STATE/{host_id}"


def topic_for(credential: str, node_kind: str) -> str:
    """The topic of one device for NDATA, NBIRTH or NCMD, which of a device are DDATA, DBIRTH, DCMD.

    Raises ValueError for a credential that is not group/node or group/node/device.
    """
    parts = credential.split("/")
    if len(parts) not in (2, 3) or not all(parts) or any(sign in credential for sign in "+#\0"):
        raise ValueError(f"credential {credential[:120]!r} is not group/node or group/node/device")
    kind = node_kind if len(parts) == 2 else f"D{node_kind[1:]}"
    return "/".join((NAMESPACE, parts[0], kind, *parts[1:]))
