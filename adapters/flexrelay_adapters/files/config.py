"""The adapter's configuration: which folder, what its files hold."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from flexrelay_adapters.ocmf import OcmfConfig
from flexrelay_sdk.config import AdapterConfig
from flexrelay_sdk.mapping import JsonMapping, Mapping


class CsvMapping(Mapping):
    """Rows below a header line; a pointer names a column (`/Import kWh`). UTF-8, no line breaks inside a field."""

    kind: Literal["csv"]
    delimiter: Literal[",", ";", "\t", "|"] = ","
    decimal: Literal[".", ","] = "."


class FilesConfig(AdapterConfig):
    """One watched folder. `in/<credential>/` is where that sender's files arrive: who may write there is the
    operating system's to say. `done/` and `failed/` beside it hold what was taken, each file with its report."""

    name: str = "files"
    folder: Path
    codec: Literal["flexrelay"] | Annotated[JsonMapping | CsvMapping | OcmfConfig, Field(discriminator="kind")]
    poll_s: Annotated[float, Field(gt=0, le=3600)] = 2.0
    settle_s: Annotated[float, Field(ge=0, le=3600)] = 2.0
    """A file is taken when size and time of change have stood still for so long."""
    max_file_bytes: Annotated[int, Field(ge=64, le=2**28)] = 16 * 2**20
    max_row_bytes: Annotated[int, Field(ge=64, le=2**20)] = 64 * 1024
    batch: Annotated[int, Field(ge=1, le=65535)] = 2000
    """Frames given to the sink at once."""
    backoff_s: Annotated[float, Field(gt=0, le=600)] = 2.0
