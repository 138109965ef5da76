"""Registered devices (OMA Core §6.2): who is there, under which credential, until when, and when it is awake.

A credential has at most one registration, so their number is bounded by that of the credentials that are let in. The
endpoint name is the device's own choice and identifies nothing.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flexrelay_adapters._instants import next_instant
from flexrelay_adapters.lwm2m.coap.peer import Address, Peer
from flexrelay_adapters.lwm2m.formats import Path
from flexrelay_adapters.lwm2m.links import links_text

LIFETIME_S: Final = 86_400
MAX_LIFETIME_S: Final = 30 * 86_400
MAX_NAME: Final = 200


class BadRegistration(ValueError):
    """The parameters of a registration are wrong."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a device says of itself in the query of a registration or update; None: not said."""

    endpoint: str | None = None
    lifetime_s: int | None = None
    version: str | None = None
    queue: bool | None = None

    @classmethod
    def of(cls, query: Sequence[str]) -> "Parameters":
        """Raises BadRegistration."""
        values: dict[str, str] = {}
        for item in query:
            name, _, value = item.partition("=")
            values[name] = value
        lifetime = None
        if "lt" in values:
            text = values["lt"]
            if not (text.isascii() and text.isdigit() and 0 < len(text) <= 10) or not int(text):
                raise BadRegistration("lt is no number of seconds")
            lifetime = min(int(text), MAX_LIFETIME_S)
        name_, version = values.get("ep"), values.get("lwm2m")
        if name_ is not None and not 0 < len(name_) <= MAX_NAME:
            raise BadRegistration(f"ep must be 1 to {MAX_NAME} characters")
        if version is not None and version not in ("1.0", "1.1", "1.2"):
            raise BadRegistration("lwm2m must be 1.0, 1.1 or 1.2")
        queue: bool | None = None
        if "Q" in values or "Q" in values.get("b", ""):  # 1.1: own parameter; 1.0: in the binding, "UQ"
            queue = True
        elif "b" in values or "lwm2m" in values:
            queue = False
        return cls(name_, lifetime, version, queue)


@dataclass(slots=True, eq=False)
class Registration:
    """One device. Times are wall-clock UTC seconds; `peer` is None while the gateway does not know how to reach it
    (after a restart a DTLS session is gone)."""

    id: str
    credential: str
    endpoint: str
    version: str
    queue: bool
    lifetime_s: int
    objects: tuple[Path, ...]
    address: Address
    secure: bool
    registered_at: float
    seen_at: float
    peer: Peer | None = None
    awake_until: float = 0.0
    observed: dict[bytes, str] = field(default_factory=dict)
    """Path (or paths, separated by spaces) by token of what is observed."""
    unobserved: bool = True
    """Whether its observations are still to be set up."""
    nameplate_at: float = 0.0
    """When its device object was asked for last."""
    fetching: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while the rest of one of its notifications is fetched."""
    fetches: set[asyncio.Task[None]] = field(default_factory=set)
    """Such notifications, fetched or waiting. Both are the credential's: registering again gives no other ones."""
    taken_at: int = 0
    """UTC ms of its newest frame."""

    def instant(self, now: float) -> int:
        """UTC ms of a frame that comes now, another for each: two objects that notify at once, without times, are two
        readings; at one instant the second would contradict the first."""
        self.taken_at = next_instant(self.taken_at, int(now * 1000))
        return self.taken_at

    @property
    def expires_at(self) -> float:
        return self.seen_at + self.lifetime_s

    def row(self) -> tuple[object, ...]:
        """As it is stored."""
        host, port = self.address
        return (
            self.id,
            self.credential,
            self.endpoint,
            self.version,
            int(self.queue),
            self.lifetime_s,
            links_text(self.objects),
            host,
            port,
            int(self.secure),
            self.registered_at,
            self.seen_at,
        )


class Registrations:
    """All of them, by id and by credential."""

    def __init__(self, most: int, awake_s: float) -> None:
        self._most = most
        self._awake_s = awake_s
        self._by_id: dict[str, Registration] = {}
        self._by_credential: dict[str, Registration] = {}
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self.moved: Callable[[Peer], None] = lambda peer: None
        """Told the peer that a device was reached by until now, when it is heard from another one: nobody answers
        there any more."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Registration]:
        return iter(list(self._by_id.values()))

    @property
    def by_credential(self) -> Mapping[str, Registration]:
        return self._by_credential

    def register(self, peer: Peer, said: Parameters, objects: tuple[Path, ...], now: float) -> Registration:
        """A new registration in place of the credential's former one. Raises BadRegistration."""
        if said.endpoint is None and not peer.secure:
            raise BadRegistration("ep is missing")  # over DTLS the server may know the name by the credential
        if not objects:
            raise BadRegistration("the list of objects is empty")
        if len(self._by_id) >= self._most and peer.credential not in self._by_credential:
            raise BadRegistration("there is no room for more devices")
        registration = Registration(
            secrets.token_urlsafe(9),
            peer.credential,
            said.endpoint or peer.credential,
            said.version or "1.0",
            bool(said.queue),
            said.lifetime_s or LIFETIME_S,
            objects,
            (peer.address[0], peer.address[1]),
            peer.secure,
            now,
            now,
            peer,
        )
        self.adopt(registration)
        self.wake(registration, peer, now)
        return registration

    def adopt(self, registration: Registration) -> None:
        """Take over one that was made already (read from the store)."""
        former = self._by_credential.get(registration.credential)
        if former is not None:
            if former.peer is not None and former.peer is not registration.peer:
                self.moved(former.peer)
            self.remove(former)
            registration.taken_at = former.taken_at
            registration.fetching, registration.fetches = former.fetching, former.fetches
        self._by_id[registration.id] = registration
        self._by_credential[registration.credential] = registration

    def find(self, id_: str, peer: Peer) -> Registration | None:
        """The registration of this id when it is this credential's; whose else it may be is not told."""
        registration = self._by_id.get(id_)
        return registration if registration is not None and registration.credential == peer.credential else None

    def update(
        self, registration: Registration, peer: Peer, said: Parameters, objects: tuple[Path, ...] | None, now: float
    ) -> None:
        if said.lifetime_s is not None:
            registration.lifetime_s = said.lifetime_s
        if said.queue is not None:
            registration.queue = said.queue
        if objects:
            registration.objects = objects
        registration.seen_at = now
        registration.address = (peer.address[0], peer.address[1])
        registration.secure = peer.secure
        self.wake(registration, peer, now)

    def wake(self, registration: Registration, peer: Peer, now: float) -> None:
        """The device was heard: in queue mode it listens for a while (OMA Core §6.5). From another peer than before (a
        new session, another port) means that it is reached there now, and may have forgotten what is observed."""
        registration.awake_until = now + self._awake_s
        if registration.peer is not peer:
            if registration.peer is not None:
                self.moved(registration.peer)
            registration.peer = peer
            registration.unobserved = True
        if self._waiters:
            for waiter in self._waiters.pop(registration.credential, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def heard(self, credential: str) -> None:
        """Return when the next message of this credential's device has come."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(credential, []).append(waiter)
        try:
            await waiter
        finally:
            waiters = self._waiters.get(credential)
            if waiters is not None and waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del self._waiters[credential]

    def reachable(self, registration: Registration, now: float) -> bool:
        """Whether something may be sent to it now."""
        return registration.peer is not None and (not registration.queue or now < registration.awake_until)

    def lost(self, peer: Peer) -> None:
        """The peer's session is over: its device cannot be reached until it is heard again."""
        registration = self._by_credential.get(peer.credential)
        if registration is not None and registration.peer is peer:
            registration.peer = None

    def remove(self, registration: Registration) -> None:
        self._by_id.pop(registration.id, None)
        if self._by_credential.get(registration.credential) is registration:
            del self._by_credential[registration.credential]
        registration.peer = None

    def expired(self, now: float) -> list[Registration]:
        return [registration for registration in self._by_id.values() if registration.expires_at <= now]
