"""Ports of a network's processes: chosen once, kept with the network.

They stand in certificates' company everywhere (a channel's configuration names its orderers' and anchor peers' ports, a
package its chaincode's), so a network that comes up again must find the ones it had. They are taken from below the
range that systems give to outgoing connections, which could otherwise hold one while the network is down.
"""

import random
import socket
from collections.abc import Iterable, Mapping
from typing import Final

from flexrelay.network.errors import NetworkError

_FIRST: Final = 20_000
_LAST: Final = 32_000
_HIGHEST: Final = 65_535
_TRIES: Final = 10_000

Ports = dict[str, int]
"""Purpose, as "peer0.dso.operations" → port on 127.0.0.1."""


def choose(purposes: Iterable[str], had: Mapping[str, int], base: int | None) -> Ports:
    """`had` and a free port for every further purpose; from `base` on in their order when it is given.

    Raises NetworkError when a port from `base` on is taken, or no free one is found.
    """
    ports = dict(had)
    used = set(ports.values())
    following = base
    for purpose in purposes:
        if purpose in ports:
            continue
        if following is not None:
            while following in used:
                following += 1
            if following > _HIGHEST:
                raise NetworkError(
                    f"base_port: from {base} on there is no port left for {purpose}; choose a lower base_port"
                )
            if not is_free(following):
                raise NetworkError(
                    f"base_port: port {following} (for {purpose}) is taken; free it or choose another base_port"
                )
            port = following
        else:
            port = _free(used)
        ports[purpose] = port
        used.add(port)
    return ports


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free for a listener
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free(used: set[int]) -> int:
    for _ in range(_TRIES):
        port = random.randrange(_FIRST, _LAST)  # noqa: S311  # no secret
        if port not in used and is_free(port):
            return port
    raise NetworkError(f"no free port from {_FIRST} to {_LAST} on 127.0.0.1")
