"""The server's resources: /rd (registration), /dp (Send), /bs (bootstrap), and notifications of what is observed.

It decides what a message means and hands it on; nothing here waits.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.blockwise import Assemblies, Block, Incomplete
from flexrelay_adapters.lwm2m.coap.codes import BLOCK1, BLOCK2, CONTENT_FORMAT, OBSERVE, POST, PUT
from flexrelay_adapters.lwm2m.coap.layer import Exchange, MessageLayer
from flexrelay_adapters.lwm2m.coap.message import Option
from flexrelay_adapters.lwm2m.codec import SEND, channel
from flexrelay_adapters.lwm2m.firewall import Firewall
from flexrelay_adapters.lwm2m.formats import FORMATS, FormatError
from flexrelay_adapters.lwm2m.links import parse_links
from flexrelay_adapters.lwm2m.registration import BadRegistration, Parameters, Registration, Registrations
from flexrelay_sdk import Frame

log = logging.getLogger(__name__)

PROTOCOL: Final = "lwm2m"


class Duties(Protocol):
    """What the server's owner does for it. All return at once and answer later."""

    def store(
        self, exchange: Exchange, registration: Registration, *, new: bool, answer: tuple[int, list[Option]]
    ) -> None:
        """Keep a registration, then answer."""
        ...

    def remove(self, exchange: Exchange | None, registration: Registration) -> None: ...

    def observe(self, registration: Registration) -> None:
        """Set its observations up (again)."""
        ...

    def take(self, exchange: Exchange, frame: Frame) -> None:
        """Give a frame to the sink, then answer."""
        ...

    def fetch_rest(self, exchange: Exchange, registration: Registration, path: str) -> None:
        """A notification whose body does not fit one datagram."""
        ...

    def bootstrap(self, exchange: Exchange, body: bytes) -> None: ...


class Server:
    """`coap.layer.Handler` of the LwM2M server."""

    layer: MessageLayer

    def __init__(
        self,
        duties: Duties,
        registrations: Registrations,
        firewall: Firewall,
        assemblies: Assemblies,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        """`wall` is UTC seconds."""
        self._duties = duties
        self._registrations = registrations
        self._firewall = firewall
        self._assemblies = assemblies
        self._wall = wall
        self._monotonic = monotonic

    def on_request(self, exchange: Exchange) -> None:
        peer, message = exchange
        credential = peer.credential
        if self._firewall.refuses(credential):
            self._refuse(exchange, codes.FORBIDDEN, "not taken here")
            return
        path = message.path()
        payload = message.payload
        block = message.option(BLOCK1)
        if block is not None:
            whole = self._assembled(exchange, path, block)
            if whole is None:
                return
            payload = whole
        if path == ("dp",):
            self._send(exchange, payload)
        elif path[:1] == ("rd",):
            self._registration(exchange, path, payload)
        elif path == ("bs",):
            if message.code == POST:
                self._duties.bootstrap(exchange, payload)
            else:
                self._refuse(exchange, codes.METHOD_NOT_ALLOWED)
        else:
            self._refuse(exchange, codes.NOT_FOUND)

    def on_notification(self, exchange: Exchange) -> bool:
        peer, message = exchange
        registration = self._registrations.by_credential.get(peer.credential)
        if registration is None or self._firewall.refuses(peer.credential):
            return False
        path = registration.observed.get(message.token)
        if path is None:
            return False
        now = self._wall()
        self._registrations.wake(registration, peer, now)
        if message.code != codes.CONTENT or message.option(OBSERVE) is None:
            registration.observed.pop(message.token, None)  # the observation is over (RFC 7641 §3.2)
            self.layer.acknowledge(exchange)
            return True
        block = message.option(BLOCK2)
        if block is not None:
            self._duties.fetch_rest(exchange, registration, path)
            return True
        content_format = message.uint(CONTENT_FORMAT) or 0
        self._duties.take(
            exchange,
            Frame(PROTOCOL, peer.credential, message.payload, registration.instant(now), channel(path, content_format)),
        )
        return True

    def _send(self, exchange: Exchange, payload: bytes) -> None:
        """OMA Core §6.4.6."""
        peer, message = exchange
        if message.code != POST:
            self._refuse(exchange, codes.METHOD_NOT_ALLOWED)
            return
        registration = self._registrations.by_credential.get(peer.credential)
        if registration is None:
            self._refuse(exchange, codes.NOT_FOUND, "register first")
            return
        content_format = message.uint(CONTENT_FORMAT)
        if content_format is None or content_format not in FORMATS:
            self._refuse(exchange, codes.UNSUPPORTED_FORMAT)
            return
        now = self._wall()
        self._registrations.wake(registration, peer, now)
        if registration.unobserved:
            self._duties.observe(registration)
        at = registration.instant(now)
        self._duties.take(exchange, Frame(PROTOCOL, peer.credential, payload, at, channel(SEND, content_format)))

    def _registration(self, exchange: Exchange, path: tuple[str, ...], payload: bytes) -> None:
        peer, message = exchange
        code = message.code
        now = self._wall()
        try:
            if len(path) == 1 and code == POST:
                said = Parameters.of(message.query())
                registration = self._registrations.register(peer, said, parse_links(payload), now)
                location = [(codes.LOCATION_PATH, b"rd"), (codes.LOCATION_PATH, registration.id.encode())]
                self._duties.store(exchange, registration, new=True, answer=(codes.CREATED, location))
                return
            if len(path) != 2 or code not in (POST, PUT, codes.DELETE):
                self._refuse(exchange, codes.METHOD_NOT_ALLOWED if len(path) <= 2 else codes.NOT_FOUND)
                return
            found = self._registrations.find(path[1], peer)
            if found is None:
                self._refuse(exchange, codes.NOT_FOUND, "register")
            elif code == codes.DELETE:
                self._duties.remove(exchange, found)
            else:
                options = message.options
                query = message.query() if any(number == codes.URI_QUERY for number, _ in options) else ()
                objects = parse_links(payload) if payload else None
                changed = bool(objects and objects != found.objects)
                self._registrations.update(found, peer, Parameters.of(query), objects, now)
                self._duties.store(exchange, found, new=changed, answer=(codes.CHANGED, []))
        except (BadRegistration, FormatError) as error:
            self._refuse(exchange, codes.BAD_REQUEST, str(error))

    def _assembled(self, exchange: Exchange, path: tuple[str, ...], value: bytes) -> bytes | None:
        """The whole body with its last block; None while more is to come, or after it was refused."""
        peer, message = exchange
        try:
            block = Block.of(value)
            resource = (message.code, path, tuple(message.query()))
            body = self._assemblies.add(peer, resource, block, message.payload, self._monotonic())
        except ValueError as error:
            self._refuse(exchange, codes.BAD_OPTION, str(error))
            return None
        except Incomplete as error:
            self._refuse(exchange, error.code)
            return None
        if body is None:
            self.layer.reply(exchange, codes.CONTINUE, [(BLOCK1, value)])
        return body

    def answer(self, exchange: Exchange, code: int, options: Sequence[Option] = (), payload: bytes = b"") -> None:
        """Answer a request; the last block of a body is named again (RFC 7959 §2.3)."""
        message = exchange.message
        if len(message.options) > 2:
            block = message.option(BLOCK1)
            if block is not None:
                options = [*options, (BLOCK1, block)]
        self.layer.reply(exchange, code, options, payload)

    def _refuse(self, exchange: Exchange, code: int, why: str = "") -> None:
        self.answer(exchange, code, payload=why[:200].encode())
