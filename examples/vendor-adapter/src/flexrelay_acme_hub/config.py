"""The adapter's configuration."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from flexrelay_sdk import AdapterConfig
from flexrelay_sdk.mapping import JsonMapping


class AcmeHubConfig(AdapterConfig):
    """One hub. `token` or the file that holds it."""

    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 7700
    token: SecretStr | None = None
    token_file: Path | None = None
    codec: JsonMapping
    batch: Annotated[int, Field(ge=1, le=10_000)] = 500
    """Readings given to the gateway at once; as many wait in memory at most."""
    max_line_bytes: Annotated[int, Field(ge=256, le=2**20)] = 64 * 1024
    retry_s: Annotated[float, Field(gt=0, le=60)] = 2.0
