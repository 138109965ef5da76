"""What a process says of itself on its operations endpoint."""

import http.client
import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Final

from flexrelay.network.genesis import HOST

_TIMEOUT_S: Final = 5.0
_HEIGHT: Final = re.compile(r'^ledger_blockchain_height\{channel="([^"]+)"\} (\S+)$', re.M)
_KNOWN: Final = re.compile(r'^gossip_membership_total_peers_known\{channel="([^"]+)"\} (\S+)$', re.M)


@dataclass(frozen=True, slots=True)
class Health:
    """`heights`: channel → number of blocks; `known`: channel → other peers that a peer sees there."""

    healthy: bool
    heights: dict[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)


def ask(port: int) -> Health:
    """Ask an operations endpoint; one that does not answer in time, or ends in mid-answer, is not healthy."""
    try:
        healthy = _healthy(port)
        text = _get(port, "metrics")
    except (OSError, http.client.HTTPException, UnicodeDecodeError):
        return Health(False)
    return Health(healthy, _by_channel(_HEIGHT, text), _by_channel(_KNOWN, text))


def _healthy(port: int) -> bool:
    """A peer of 2.5 looks for Docker whatever it is told; nothing here needs it."""
    try:
        _get(port, "healthz")
    except urllib.error.HTTPError as error:
        try:
            failed = [check["component"] for check in json.loads(error.read())["failed_checks"]]
        except (ValueError, KeyError, TypeError):
            return False
        return bool(failed) and all(component == "docker" for component in failed)
    return True


def _by_channel(gauge: re.Pattern[str], text: str) -> dict[str, int]:
    return {channel: int(float(value)) for channel, value in gauge.findall(text)}


def _get(port: int, path: str) -> str:
    url = f"http://{HOST}:{port}/{path}"
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # always http on loopback
        body: bytes = answer.read()
    return body.decode()
