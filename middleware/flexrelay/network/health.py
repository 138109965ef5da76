"""What a process says of itself on its operations endpoint."""

import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Final

from flexrelay.network.genesis import HOST

_TIMEOUT_S: Final = 1.0
_HEIGHT: Final = re.compile(r'^ledger_blockchain_height\{channel="([^"]+)"\} (\S+)$', re.M)


@dataclass(frozen=True, slots=True)
class Health:
    """`heights`: channel → number of blocks, where the process counts them."""

    healthy: bool
    heights: dict[str, int]


def ask(port: int) -> Health:
    """Ask an operations endpoint; one that does not answer within a second is not healthy."""
    try:
        _get(port, "healthz")
        return Health(True, {name: int(float(value)) for name, value in _HEIGHT.findall(_get(port, "metrics"))})
    except (OSError, urllib.error.URLError):
        return Health(False, {})


def _get(port: int, path: str) -> str:
    url = f"http://{HOST}:{port}/{path}"
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # always http on loopback
        body: bytes = answer.read()
    return body.decode()
