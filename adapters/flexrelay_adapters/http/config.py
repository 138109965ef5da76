"""The adapter's configuration: where it listens, whom it knows, what a body holds."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from flexrelay_adapters._pushed import PushedListen, PushPath
from flexrelay_adapters.ocmf import OcmfConfig
from flexrelay_sdk.config import AdapterConfig
from flexrelay_sdk.mapping import JsonMapping
from flexrelay_sdk.mapping import Path as Place


class HttpConfig(PushedListen, AdapterConfig):
    """One listener for one organisation. An identity (of a token or certificate) is a device unless it is named in
    `relays` or `platforms`.

    A relay sends for the devices behind it, each at a path of its own; a platform names the device in the body. Their
    devices' credentials are `<identity>/<device>`, so no sender can speak for another's.
    """

    name: str = "http"
    path: PushPath = "/readings"
    certificates: Literal["common_name", "fingerprint"] = "common_name"
    """What of a client certificate is the identity: its subject's common name, or its SHA-256."""
    relays: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    elements: Place | None = None
    """Platforms: where the list of readings stands in a body; "" when the body is the list, None when it is one."""
    device: Place | None = None
    """Platforms: where an element names its device."""
    webhook_origins: tuple[str, ...] = ()
    """Platforms that ask before they send (CloudEvents HTTP webhooks): the origins that may."""
    codec: Literal["flexrelay"] | Annotated[JsonMapping | OcmfConfig, Field(discriminator="kind")] = "flexrelay"
    """`flexrelay`: signed readings; or a mapping of plain JSON; or OCMF."""
    max_batch: Annotated[int, Field(ge=1, le=10_000)] = 1000
    """Elements of one body."""
    idempotency_keys: Annotated[int, Field(ge=0, le=10**6)] = 10_000
    """Outcomes that are kept for a repeated Idempotency-Key."""
    idempotency_bytes: Annotated[int, Field(ge=2**12, le=2**28)] = 16 * 2**20
    idempotency_s: Annotated[int, Field(ge=1, le=7 * 86400)] = 86400
    state: Path | None = None
    """Folder that keeps over a restart when requests with an Idempotency-Key came. Only needed for readings without a
    time of their own: a repeated one would be another reading after a restart."""
    commands: PushPath | None = None
    """Path where devices fetch their commands and tell results; None: this adapter commands nothing."""
    command_repeat_s: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """A command that was fetched and not answered is given out again after this time."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.tokens_file is None and (self.tls is None or self.tls.client_ca is None):
            raise ValueError("nobody could send: set tokens_file, or tls.client_ca for client certificates")
        if set(self.relays) & set(self.platforms):
            raise ValueError("an identity is in relays or in platforms, not in both")
        if bool(self.platforms) != (self.device is not None):
            raise ValueError("platforms and device belong together: device says where a platform names the device")
        if self.elements is not None and not self.platforms:
            raise ValueError("elements is for platforms; a device sends its lists to the path with /batch")
        if self.commands is not None and (self.commands + "/").startswith(self.path + "/"):
            raise ValueError("commands must not lie below path")
        return self

    @property
    def may_use_receive_time(self) -> bool:
        """Whether a reading's instant could be that of its reception."""
        return isinstance(self.codec, JsonMapping) and self.codec.may_use_receive_time
