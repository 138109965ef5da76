"""The configuration of one process: one ledger and one or more gateways, each an organisation's own.

One frozen model, read from `flexrelay.toml` in the data folder and from environment variables (prefix `FLEXRELAY_`,
`__` between levels, e.g. `FLEXRELAY_PASSPHRASE`, `FLEXRELAY_HTTP__PORT`), validated at start. Unknown keys and missing
secrets are errors that name the key. Relative paths are relative to the data folder. Ports are on loopback.
"""

from os.path import normpath
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from flexrelay_sdk.config import problems

FILE_NAME = "flexrelay.toml"
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
OrgName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,31}$")]
"""An organisation; on Fabric its MSP id."""

Port = Annotated[int, Field(ge=0, le=65535)]


class ConfigError(ValueError):
    """The configuration cannot be used; the message has one line per key: where, what, and what stands there."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LedgerConfig(_Section):
    """`embedded`: a hash-chained file in `folder`, for one operator, development and tests. `fabric`: a Hyperledger
    Fabric network; `profiles` maps each gateway's organisation (its MSP id) to its connection profile."""

    kind: Literal["embedded", "fabric"] = "embedded"
    folder: Path = Path("ledger")
    profiles: dict[str, Path] = {}


class HttpConfig(_Section):
    """`/healthz`, `/readyz`, `/metrics`. Port 0: off."""

    host: Literal["127.0.0.1", "::1"] = "127.0.0.1"
    port: Port = 0


class IngestConfig(_Section):
    """Bounds of the ingest path. When the queue is full the adapters stop reading from their protocols.

    `retention_days`: journal entries, ended intents and the twin's readings go when they are older. The journal holds
    the evidence, and nothing asks the ledger whether a settlement is final: so it must be longer than the time from a
    reading to the end of its settlement's last dispute. It must also be longer than `stale_after_days`, or a reading
    that comes again would not be known as a duplicate.

    `fill_gaps_days`: how far back a gap that an outage has left is read from the history of the other side, where an
    adapter can; 0 leaves gaps alone.
    """

    max_frame_bytes: Annotated[int, Field(ge=256, le=16_777_216)] = 65_536
    queue_frames: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    queue_bytes: Annotated[int, Field(ge=65_536)] = 64 * 1024 * 1024
    future_tolerance_s: Annotated[int, Field(ge=0, le=86_400)] = 60
    stale_after_days: Annotated[int, Field(ge=1, le=3_650)] = 30
    dead_letters: Annotated[int, Field(ge=1)] = 100_000
    dead_letter_bytes: Annotated[int, Field(ge=65_536)] = 256 * 1024 * 1024
    retention_days: Annotated[int, Field(ge=1, le=1_000_000)] = 400
    fill_gaps_days: Annotated[int, Field(ge=0, le=366)] = 7

    @model_validator(mode="after")
    def _kept_long_enough(self) -> Self:
        if self.retention_days <= self.stale_after_days:
            raise ValueError(
                f"retention_days {self.retention_days} must be more than stale_after_days {self.stale_after_days}"
            )
        return self


class WindowsConfig(_Section):
    """When windows close and roots are anchored, in seconds of market time after the interval's end."""

    grace_s: Annotated[int, Field(ge=0, le=864_000)] = 900
    anchor_every_s: Annotated[int, Field(ge=1, le=864_000)] = 3_600


class BatteryConfig(_Section):
    """One battery that an aggregator commands: the name of its enrolled device, its connection, what it can do."""

    device: str
    connection: str
    rated_w: Annotated[int, Field(ge=1)]
    capacity_wh: Annotated[int, Field(ge=1)]


class GatewayConfig(_Section):
    """One organisation's gateway: its folder holds journal, store and keys."""

    org: OrgName
    folder: Path
    ingest: IngestConfig = IngestConfig()
    windows: WindowsConfig = WindowsConfig()
    adapters: Annotated[dict[Name, dict[str, Any]], Field(repr=False)] = {}
    """Adapter name → its own configuration, with `type` naming an entry point of the group `flexrelay.adapters`. Not
    shown in a repr: it may hold a password."""

    fleet: tuple[BatteryConfig, ...] = ()
    """What this organisation's aggregator activates its orders with, split by capacity."""

    @field_validator("adapters")
    @classmethod
    def _typed(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, section in value.items():
            if not isinstance(section.get("type"), str):
                raise ValueError(f"adapters.{name} has no type")
        return value


class Config(BaseSettings):
    """The whole of it. `passphrase` opens the key files; give it by environment or a secret file, not in the TOML."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="FLEXRELAY_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    network: Name
    passphrase: SecretStr
    ledger: LedgerConfig = LedgerConfig()
    http: HttpConfig = HttpConfig()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    gateways: Annotated[tuple[GatewayConfig, ...], Field(min_length=1)]

    @field_validator("gateways")
    @classmethod
    def _distinct(cls, value: tuple[GatewayConfig, ...]) -> tuple[GatewayConfig, ...]:
        orgs = [gateway.org for gateway in value]
        if len(set(orgs)) != len(orgs):
            raise ValueError(f"an organisation stands twice: {', '.join(orgs)}")
        folders = [normpath(gateway.folder) for gateway in value]
        if len(set(folders)) != len(folders):
            raise ValueError(f"each gateway has a folder of its own; a folder stands twice: {', '.join(folders)}")
        return value

    @model_validator(mode="after")
    def _connected(self) -> Self:
        if self.ledger.kind == "fabric":
            for gateway in self.gateways:
                if gateway.org not in self.ledger.profiles:
                    raise ValueError(
                        f"ledger.profiles has no connection profile of {gateway.org}: kind fabric needs one"
                    )
        elif self.ledger.profiles:
            raise ValueError("ledger.profiles are for the kind fabric; this ledger is embedded")
        return self


def load(folder: Path) -> Config:
    """Read `folder`/flexrelay.toml and the environment. Raises ConfigError."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; `flexrelay init {folder}` makes a data folder")

    class _FromFile(Config):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            secrets = SecretsSettingsSource(settings_cls, folder / "secrets") if (folder / "secrets").is_dir() else None
            file = TomlConfigSettingsSource(settings_cls, path)
            return (env_settings, file) if secrets is None else (env_settings, secrets, file)

    try:
        return _FromFile()
    except ValidationError as error:
        raise ConfigError(f"{path}: " + "; ".join(map(_with_variable, problems(error)))) from None
    except ValueError as error:  # not TOML
        raise ConfigError(f"{path}: {error}") from None


def _with_variable(problem: str) -> str:
    """What is missing may be in the environment too."""
    where = problem.removesuffix(" is missing")
    return problem if where == problem else f"{problem} (or set FLEXRELAY_{where.upper().replace('.', '__')})"
