"""The configuration of one chaincode process, from a TOML file. Relative paths are relative to that file."""

import ipaddress
import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from flexrelay_chaincode.package import package_id
from flexrelay_schemas.model import Items, Model

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]+([-_][A-Za-z0-9]+)*$", max_length=64)]
PackageId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]+([.+\-_][A-Za-z0-9]+)*:[0-9a-f]{64}$")]
Address = Annotated[str, StringConstraints(pattern=r"^[^\s]+:\d{1,5}$")]

_FILES = ("tls_certificate", "tls_key", "client_ca")
_PATHS = (*_FILES, "package")


class ConfigError(ValueError):
    """The configuration cannot be used; the message names file, key and remedy."""


class ChaincodeConfig(Model):
    """`id`: the package id as the peer computed it (label:hash). `name`: the chaincode's name on the channel. `org`:
    MSP id of the organisation whose peer dials. `listen`: host:port; port 0 takes a free one.

    `tls_certificate`, `tls_key`, `client_ca` (PEM files): all three = TLS both ways; none = plain, on loopback only.
    `collections`: name → member organisations. `guard_ms`: how far a proposal's timestamp may be from this clock.
    `contract`: a module with TRANSACTIONS and QUERIES. `entries`: contract (the function's name before the dot) → the
    chaincode through which it must be called; not named: `name`. `forward_to`: this process is an entry only and passes
    every call on to that chaincode of the channel. `max_calls`: that run or wait at once. `threads`: one reads, each
    further one finishes a call that computes for long. `call_timeout_s` stays below the peer's `executetimeout`.
    `package`: the installed package's file; when given, its id must be `id` (a peer answers a wrong id with silence).
    `max_message_bytes`: the peer's gRPC limit. `health`: host:port of /healthz and /metrics.
    """

    id: PackageId
    name: Name = "flexrelay"
    org: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    listen: Address
    tls_certificate: str = ""
    tls_key: str = ""
    client_ca: str = ""
    collections: dict[str, Items[str]] = Field(default_factory=dict)
    guard_ms: int = Field(default=60_000, ge=1_000, le=3_600_000)
    contract: str = "flexrelay_contracts.catalogue"
    entries: dict[str, Name] = Field(default_factory=dict)
    forward_to: Name | None = None
    max_calls: int = Field(default=512, ge=1, le=10_000)
    threads: int = Field(default=16, ge=1, le=256)
    call_timeout_s: float = Field(default=4.0, gt=0, le=300, strict=False)
    package: str = ""
    max_message_bytes: int = Field(default=100 * 1024 * 1024, ge=64 * 1024, le=2**31 - 1)
    health: Address | None = None
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        given = [name for name in _FILES if getattr(self, name)]
        if given and len(given) != len(_FILES):
            missing = ", ".join(name for name in _FILES if name not in given)
            raise ValueError(f"TLS needs {', '.join(_FILES)} together; missing: {missing}")
        if not given and not _loopback(split_address(self.listen)[0]):
            raise ValueError(f"listen {self.listen} is not on loopback: give {', '.join(_FILES)}")
        if self.forward_to == self.name:
            raise ValueError(f"forward_to names this chaincode itself ({self.name})")
        return self

    @property
    def tls(self) -> bool:
        return bool(self.tls_certificate)


def load(path: Path) -> ChaincodeConfig:
    """Raises ConfigError."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    for name in _PATHS:
        if isinstance(values.get(name), str) and values[name]:
            values[name] = str(path.parent / values[name])
    try:
        return _checked(ChaincodeConfig.model_validate(values), path)
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(str(part) for part in row['loc']) or 'file'}: {row['msg']}"
            for row in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigError("\n".join(lines)) from None


def _checked(config: ChaincodeConfig, path: Path) -> ChaincodeConfig:
    """Raises ConfigError when the package that is named has another id."""
    if config.package:
        try:
            content = Path(config.package).read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: package: {config.package} cannot be read: {error.strerror}") from None
        found = package_id(config.id.rpartition(":")[0], content)
        if found != config.id:
            raise ConfigError(f"{path}: id: {config.id} is not the id of {config.package}; write {found}")
    return config


def split_address(text: str) -> tuple[str, int]:
    """host:port, an IPv6 host in brackets."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
