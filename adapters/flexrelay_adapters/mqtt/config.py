"""The adapter's configuration: one frozen model, checked at start, secrets typed."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from flexrelay_adapters.mqtt.topics import TopicPattern
from flexrelay_sdk.config import AdapterConfig, Section, below
from flexrelay_sdk.mapping import JsonMapping


class TlsConfig(Section):
    """TLS to the broker; `ca` None means the system's roots. Certificate and key are a pair (PEM files)."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both or none")
        return self


class BrokerConfig(AdapterConfig):
    """One connection to one broker, for one organisation: what every adapter over MQTT needs of it.

    The window is how many readings may be unacknowledged, hence the greatest batch of one commit: `receive_maximum` on
    MQTT 5, the broker's own setting on 3.1.1 (Mosquitto: `max_inflight_messages`, 20 unless set).
    """

    name: str = "mqtt"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 1883
    protocol: Literal["5", "3.1.1"] = "5"
    client_id: Annotated[str, Field(min_length=1, max_length=128)]
    username: str | None = None
    password: SecretStr | None = None
    tls: TlsConfig | None = None
    keepalive_s: Annotated[int, Field(ge=1, le=3600)] = 30
    connect_timeout_s: Annotated[float, Field(gt=0, le=120)] = 10.0
    session_expiry_s: Annotated[int, Field(ge=0, le=2**32 - 1)] = 7 * 86400
    """How long the broker keeps the session (and with it unacknowledged readings) while the gateway is away."""
    receive_maximum: Annotated[int, Field(ge=1, le=65535)] = 65535
    """Window asked of an MQTT 5 broker. Mosquitto 2.0 exceeds a smaller one when it resumes a session with readings
    under way; the client must end the connection then, over and over. What waits here is bounded by `max_pending`."""
    batch: Annotated[int, Field(ge=1, le=65535)] = 2000
    """Readings given to the sink at once."""
    max_pending: Annotated[int, Field(ge=1, le=65535)] = 4000
    """Messages that wait for the sink; beyond it the adapter stops reading from the broker."""
    max_payload_bytes: Annotated[int, Field(ge=64, le=2**24)] = 64 * 1024
    max_pending_bytes: Annotated[int, Field(ge=2**16, le=2**30)] = 32 * 2**20
    """The same bound in bytes."""
    shared_group: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """MQTT 5 shared subscription: several gateways of one organisation divide the readings."""
    backoff_min_s: Annotated[float, Field(gt=0)] = 0.2
    backoff_max_s: Annotated[float, Field(gt=0)] = 30.0

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.shared_group is not None and self.protocol != "5":
            raise ValueError("shared_group needs protocol 5")
        if self.password is not None and self.username is None:
            raise ValueError("password without username")
        if self.backoff_max_s < self.backoff_min_s:
            raise ValueError("backoff_max_s is less than backoff_min_s")
        if self.max_pending_bytes < self.max_payload_bytes:
            raise ValueError("max_pending_bytes is less than max_payload_bytes")
        return self

    def below(self, folder: Path) -> Self:
        """The same with the TLS files as they are meant in a configuration file of `folder`."""
        if self.tls is None:
            return self
        files = {field: below(folder, getattr(self.tls, field)) for field in ("ca", "certificate", "key")}
        return self.model_copy(update={"tls": self.tls.model_copy(update=files)})

    def check_files(self) -> None:
        """Raises ValueError naming the field of a file that does not exist."""
        if self.tls is not None:
            for field in ("ca", "certificate", "key"):
                path = getattr(self.tls, field)
                if path is not None and not path.is_file():
                    raise ValueError(f"{self.name}.tls.{field}: there is no file {path}")


class MqttConfig(BrokerConfig):
    """Readings of one mapping, commands and results as this adapter defines them."""

    readings: Annotated[tuple[str, ...], Field(min_length=1)]
    """Topics of readings, each with one level {device}."""
    commands: str | None = None
    """Topic of commands to a device, with {device}; None: this adapter commands nothing."""
    results: str | None = None
    """Topic of a device's answers, with {device}."""
    codec: Literal["flexrelay"] | JsonMapping = "flexrelay"
    """`flexrelay`: signed readings; or a mapping of plain JSON."""

    @field_validator("readings")
    @classmethod
    def _reading_topics(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            TopicPattern(pattern)
        return value

    @field_validator("commands", "results")
    @classmethod
    def _command_topics(cls, value: str | None) -> str | None:
        if value is not None and "+" in TopicPattern(value).pattern:
            raise ValueError(f"topic {value!r} must not hold +: it names one device")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.commands is None) != (self.results is None):
            raise ValueError("commands and results belong together: give both topics or none")
        return self
