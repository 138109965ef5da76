"""The topics of OPC 10000-14 §7.3.4.7, or the system's own: who the publisher is stands in one level."""

from typing import Final, NamedTuple

from flexrelay_adapters.mqtt.topics import DEVICE, MAX_TOPIC, TopicPattern
from flexrelay_adapters.opcua_pubsub.config import PubSubConfig

_REMEMBERED: Final = 50_000
_REMEMBERED_LENGTH: Final = 200
"""Topics whose place is remembered, and how long they are."""


class Place(NamedTuple):
    """Where a message came. `writer` is the topic's own level for it, "" where it has none."""

    publisher: str
    writer: str = ""


class Topics:
    """`of_data` and `announces` tell what a topic is."""

    def __init__(self, config: PubSubConfig) -> None:
        own = tuple(f"{config.prefix}/data/{DEVICE}/{rest}" for rest in ("+", "+/+"))
        self._data = tuple(TopicPattern(each) for each in config.data or own)
        self._with_writer = () if config.data is not None else self._data[1:]
        metadata = [f"{config.prefix}/metadata/{DEVICE}/{rest}" for rest in ("+", "+/+")]
        self._told = tuple(TopicPattern(each) for each in (*metadata, f"{config.prefix}/status/{DEVICE}"))
        group = f"$share/{config.shared_group}/" if config.shared_group is not None else ""
        self._places: dict[str, Place] = {}
        # what is retained comes to no shared subscription, and every gateway needs it
        self.filters = [group + each.filter for each in self._data] + [each.filter for each in self._told]

    def of_data(self, topic: str) -> Place | None:
        """None: it is none of the data topics, or too long."""
        place = self._places.get(topic)
        if place is None and len(topic) > MAX_TOPIC:
            return None
        if place is None and (place := self._place(topic)) is not None and len(topic) <= _REMEMBERED_LENGTH:
            if len(self._places) >= _REMEMBERED:
                self._places.clear()
            self._places[topic] = place
        return place

    def _place(self, topic: str) -> Place | None:
        for pattern in self._data:
            publisher = pattern.credential_of(topic)
            if publisher:
                return Place(publisher, topic.rpartition("/")[2] if pattern in self._with_writer else "")
        return None

    def announces(self, topic: str) -> str:
        """The publisher of metadata or status, "" when the topic is of neither, or too long."""
        if len(topic) > MAX_TOPIC:
            return ""
        for pattern in self._told:
            publisher = pattern.credential_of(topic)
            if publisher:
                return publisher
        return ""

    def data_of(self, publisher: str) -> list[str]:
        """Raises ValueError for a publisher that is no single level."""
        return [each.topic_for(publisher) for each in self._data]
