"""The adapter's configuration: broker, topics, which field of which DataSet is which register."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from flexrelay_adapters.mqtt.config import BrokerConfig
from flexrelay_adapters.mqtt.topics import TopicPattern
from flexrelay_sdk.config import Section
from flexrelay_sdk.mapping import Conversion
from flexrelay_sdk.mapping.units import Unit

Prefix = Annotated[str, Field(pattern=r"^[^/+#$\x00{}][^+#\x00{}]{0,200}$")]
"""The first levels of all topics."""
FieldName = Annotated[str, Field(min_length=1, max_length=400)]


class FieldSource(Section):
    """One register from one field of the DataSet: value × 10^scale × unit. None is required: a delta frame has only
    what has changed."""

    field: FieldName
    unit: Unit
    scale: Annotated[int, Field(ge=-12, le=12)] = 0
    negate: bool = False
    """The source counts feed-in as positive; flexrelay counts withdrawal as positive."""


class DataSet(Section):
    """What the DataSetMessages of these writers mean."""

    writers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """DataSetWriterIds or DataSetWriterNames; None: those that no other entry names."""
    registers: Annotated[dict[str, FieldSource], Field(min_length=1, max_length=64)]
    major: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    """Only of this major version of the DataSet's configuration (MetaDataVersion); others are dead letters. None: of
    any, since the fields go by their names."""

    @field_validator("registers")
    @classmethod
    def _units(cls, value: dict[str, FieldSource]) -> dict[str, FieldSource]:
        for name, source in value.items():
            Conversion(name, source.unit, source.scale, source.negate)
        if len({source.field for source in value.values()}) < len(value):
            raise ValueError("a field is mapped to two registers")
        return value


class PubSubConfig(BrokerConfig):
    """One broker, the publishers on it."""

    name: str = "opcua_pubsub"
    prefix: Prefix = "opcua/json"
    """Before the message type in the topics of OPC 10000-14 §7.3.4.7: `<prefix>/data/<PublisherId>/<group>[/<writer>]`,
    `<prefix>/metadata/…`, `<prefix>/status/<PublisherId>`."""
    data: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Topics of the data where the system has its own, each with one level {device}: the publisher. None: those of
    `prefix`."""
    datasets: Annotated[tuple[DataSet, ...], Field(min_length=1)]
    time: Literal["source", "message"] = "source"
    """The reading's instant: the newest SourceTimestamp of the fields it takes, or the DataSetMessage's Timestamp. The
    other one, then the time of reception, stand in for it."""
    check_publisher: bool = True
    """A PublisherId that the message names must be the topic's level. Off where topics are named otherwise; the level
    is what counts all the same."""
    max_publishers: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    max_writers: Annotated[int, Field(ge=1, le=65_536)] = 512
    """Publishers, and writers of each, of which metadata and sequence numbers are remembered. The messages of those
    beyond are taken without."""

    @field_validator("data")
    @classmethod
    def _topics(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for pattern in value or ():
            TopicPattern(pattern)
        return value

    @model_validator(mode="after")
    def _apart(self) -> "PubSubConfig":
        named = [writer for each in self.datasets for writer in each.writers or ()]
        if len(set(named)) < len(named):
            raise ValueError("datasets: a writer stands in two of them")
        if sum(each.writers is None for each in self.datasets) > 1:
            raise ValueError("datasets: only one of them can be without writers")
        return self
