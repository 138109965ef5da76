"""Broker users and the topics that each may use: a device writes below its own name only."""

from dataclasses import dataclass
from pathlib import Path

TOPICS = "flexrelay/v1"
"""First levels of every topic; then organisation, device and one of readings, commands, results."""


class BrokerError(Exception):
    """The broker could not be started; the message says why and where its log is."""


@dataclass(frozen=True, slots=True)
class Account:
    """A broker user. `read` and `write` are topic filters it may use besides those of a device."""

    user: str
    password: str
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tls:
    """Server certificate and key; with `require_certificate` a client's certificate CN is its user name."""

    ca: Path
    certificate: Path
    key: Path
    require_certificate: bool = False


def device_account(scid: str, password: str) -> Account:
    """A device writes its readings and results to every organisation and reads its own commands."""
    return Account(
        scid,
        password,
        read=(f"{TOPICS}/+/{scid}/commands",),
        write=(f"{TOPICS}/+/{scid}/readings", f"{TOPICS}/+/{scid}/results"),
    )


def gateway_account(org: str, user: str, password: str) -> Account:
    """An organisation's gateway reads its devices' readings and results and writes commands."""
    return Account(
        user,
        password,
        read=(f"{TOPICS}/{org}/+/readings", f"{TOPICS}/{org}/+/results"),
        write=(f"{TOPICS}/{org}/+/commands",),
    )
