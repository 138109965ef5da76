"""Observations: what is observed on each device, under tokens that a restart finds again.

A token is a keyed hash of registration and path. So after a restart notifications of a device are known before anything
was asked of it, and asking again replaces the observation instead of adding one (RFC 7641 §3.1).
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence

from flexrelay_adapters.lwm2m.coap.codes import CONTENT_FORMAT, OBSERVE, SENML_CBOR, TLV
from flexrelay_adapters.lwm2m.coap.layer import NoAnswer
from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.codec import channel
from flexrelay_adapters.lwm2m.formats import Path, parse_path, path_text
from flexrelay_adapters.lwm2m.operations import Operations, Refused
from flexrelay_adapters.lwm2m.registration import Registration
from flexrelay_adapters.lwm2m.server import PROTOCOL
from flexrelay_sdk import Frame

log = logging.getLogger(__name__)


def token_of(registration: Registration, path: str) -> bytes:
    """The token of an observation; the registration's id is random, so nobody can guess it."""
    return hashlib.blake2b(f"{registration.id}\n{path}".encode(), digest_size=8).digest()


def wanted(registration: Registration, configured: Sequence[str], objects: Sequence[int]) -> list[str]:
    """The paths to observe on a device: the configured ones that it has, else its instances of `objects`."""
    has = registration.objects
    if configured:
        return [path for path in configured if _covers(parse_path(path), has)]
    return [path_text(path) for path in has if len(path) == 2 and path[0] in objects]


def _covers(path: Path, has: Sequence[Path]) -> bool:
    return any(path[: len(own)] == own or own[: len(path)] == path for own in has)


class Observing:
    """Sets observations up and gives their first values on."""

    def __init__(
        self,
        operations: Operations,
        take: Callable[[Frame], bool],
        wall: Callable[[], float],
        *,
        everywhere: Mapping[str, float],
        by_path: Mapping[str, Mapping[str, float]],
    ) -> None:
        """Notification attributes by name: those of all paths, and those of some."""
        self._operations = operations
        self._take = take
        self._wall = wall
        self._everywhere = everywhere
        self._by_path = by_path

    def expect(self, registration: Registration, paths: Sequence[str]) -> None:
        """Notifications of these paths are known from now on."""
        for path in paths:
            registration.observed[token_of(registration, path)] = path

    async def set_up(self, registration: Registration, paths: Sequence[str]) -> None:
        """Observe the paths, one after the other; one that the device refuses is left out. Raises NoAnswer."""
        for path in paths:
            peer = registration.peer
            if peer is None:
                return
            token = token_of(registration, path)
            registration.observed[token] = path
            try:
                attributes = {**self._everywhere, **self._by_path.get(path, {})}
                if attributes:
                    await self._operations.write_attributes(peer, path, attributes)
            except Refused as error:
                log.info("%s does not take attributes of %s: %s", peer, path, error)
            try:
                await self._observe(peer, registration, path, token)
            except Refused as error:
                registration.observed.pop(token, None)
                log.info("%s refuses to be observed at %s: %s", peer, path, error)

    async def _observe(self, peer: Peer, registration: Registration, path: str, token: bytes) -> None:
        accept = TLV if registration.version == "1.0" else SENML_CBOR
        answer = await self._operations.observe(peer, path, token, accept)
        if answer.option(OBSERVE) is None:
            registration.observed.pop(token, None)
            log.info("%s does not notify about %s", peer, path)
        frame_channel = channel(path, answer.uint(CONTENT_FORMAT) or 0)
        frame = Frame(PROTOCOL, peer.credential, answer.payload, registration.instant(self._wall()), frame_channel)
        if answer.payload and not self._take(frame):
            raise NoAnswer("too much waits for the sink")
