"""What the server may ask of a device (OMA Core §6.3, §6.4), each one request: read, write, execute, create, delete,
discover, write attributes, observe, cancel, and the composite ones."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from flexrelay_adapters.lwm2m import formats
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.blockwise import transfer
from flexrelay_adapters.lwm2m.coap.codes import ACCEPT, CONTENT_FORMAT, OBSERVE, URI_QUERY, code_text
from flexrelay_adapters.lwm2m.coap.layer import MessageLayer
from flexrelay_adapters.lwm2m.coap.message import Message, Option, path_options, uint
from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.formats import FormatError, Record, Value, parse_path

ATTRIBUTES: Final = ("pmin", "pmax", "gt", "lt", "st", "epmin", "epmax")
"""Notification attributes (OMA Core §5.1.2)."""


class Refused(Exception):
    """The device answered with an error; `code` is its."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{code_text(code)} {why}".strip())
        self.code = code


class Operations:
    """Operations on one layer's peers. All raise `coap.layer.NoAnswer` and Refused; reads FormatError besides."""

    def __init__(self, layer: MessageLayer, wall: Callable[[], float]) -> None:
        self._layer = layer
        self._wall = wall

    async def read(self, peer: Peer, path: str, accept: int | None = None) -> list[Record]:
        """The resources below a path; `accept` asks for a content format (None: the device's choice)."""
        options = path_options(path)
        if accept is not None:
            options.append(uint(ACCEPT, accept))
        return self._records(await self._ask(peer, codes.GET, options), path)

    async def write(
        self,
        peer: Peer,
        path: str,
        values: Mapping[str, Value] | Value,
        content_format: int = codes.SENML_CBOR,
        *,
        replace: bool = False,
        sent: Callable[[], None] | None = None,
    ) -> None:
        """One value, or several by their path below `path` ("5850"). A single resource is always replaced; of an
        instance `replace` puts the values in place of all there were, else the others stay (partial update)."""
        records = _records(path, values)
        base = parse_path(path)
        body = formats.encode(content_format, records, base)
        code = codes.PUT if replace or len(base) >= 3 else codes.POST
        options = [*path_options(path), uint(CONTENT_FORMAT, content_format)]
        await self._ask(peer, code, options, body, sent=sent)

    async def execute(
        self, peer: Peer, path: str, arguments: str = "", *, sent: Callable[[], None] | None = None
    ) -> None:
        options = path_options(path)
        if arguments:
            options.append(uint(CONTENT_FORMAT, codes.TEXT))
        await self._ask(peer, codes.POST, options, arguments.encode(), sent=sent)

    async def create(
        self, peer: Peer, object_id: int, instance: int, values: Mapping[str, Value], content_format: int = codes.TLV
    ) -> None:
        """A new object instance with these resources."""
        records = _records(f"/{object_id}/{instance}", values)
        body = formats.encode(content_format, records, (object_id,))
        options = [*path_options(f"/{object_id}"), uint(CONTENT_FORMAT, content_format)]
        await self._ask(peer, codes.POST, options, body)

    async def delete(self, peer: Peer, path: str) -> None:
        await self._ask(peer, codes.DELETE, path_options(path))

    async def discover(self, peer: Peer, path: str) -> str:
        """What lies below a path, with its attributes, in link format."""
        answer = await self._ask(peer, codes.GET, [*path_options(path), uint(ACCEPT, codes.LINK)])
        return answer.payload.decode(errors="replace")

    async def write_attributes(self, peer: Peer, path: str, attributes: Mapping[str, float | None]) -> None:
        """Notification attributes by name; None takes one away. Raises ValueError for an unknown one."""
        options = path_options(path)
        for name, value in attributes.items():
            if name not in ATTRIBUTES:
                raise ValueError(f"unknown attribute {name!r}; known are {', '.join(ATTRIBUTES)}")
            text = name if value is None else f"{name}={Decimal(str(value)):f}"  # there are no exponents
            options.append((URI_QUERY, text.encode()))
        await self._ask(peer, codes.PUT, options)

    async def observe(self, peer: Peer, path: str, token: bytes, accept: int | None = None) -> Message:
        """Observe a path under `token`; the answer holds the present value, and option Observe if it will notify."""
        options = [uint(OBSERVE, 0), *path_options(path)]
        if accept is not None:
            options.append(uint(ACCEPT, accept))
        return await self._ask(peer, codes.GET, options, token=token)

    async def cancel(self, peer: Peer, path: str, token: bytes) -> None:
        """End an observation."""
        await self._ask(peer, codes.GET, [uint(OBSERVE, 1), *path_options(path)], token=token)

    async def read_composite(
        self, peer: Peer, paths: Sequence[str], content_format: int = codes.SENML_CBOR
    ) -> list[Record]:
        answer = await self._ask(peer, codes.FETCH, *_composite(paths, content_format, []))
        return self._records(answer, "/")

    async def observe_composite(
        self, peer: Peer, paths: Sequence[str], token: bytes, content_format: int = codes.SENML_CBOR
    ) -> Message:
        options, body = _composite(paths, content_format, [uint(OBSERVE, 0)])
        return await self._ask(peer, codes.FETCH, options, body, token=token)

    async def cancel_composite(
        self, peer: Peer, paths: Sequence[str], token: bytes, content_format: int = codes.SENML_CBOR
    ) -> None:
        options, body = _composite(paths, content_format, [uint(OBSERVE, 1)])
        await self._ask(peer, codes.FETCH, options, body, token=token)

    async def write_composite(
        self,
        peer: Peer,
        values: Mapping[str, Value],
        content_format: int = codes.SENML_CBOR,
        *,
        sent: Callable[[], None] | None = None,
    ) -> None:
        """Values by their whole path, in several objects at once."""
        records = [Record(parse_path(path), value) for path, value in values.items()]
        body = formats.encode(content_format, records, ())
        await self._ask(peer, codes.IPATCH, [uint(CONTENT_FORMAT, content_format)], body, sent=sent)

    def _records(self, answer: Message, path: str) -> list[Record]:
        content_format = answer.uint(CONTENT_FORMAT)
        return formats.decode(content_format or 0, answer.payload, parse_path(path), self._wall())

    async def _ask(
        self,
        peer: Peer,
        code: int,
        options: Sequence[Option],
        body: bytes = b"",
        token: bytes | None = None,
        sent: Callable[[], None] | None = None,
    ) -> Message:
        answer = await transfer(self._layer, peer, code, options, body, token=token, sent=sent)
        if answer.code >> 5 != 2:
            raise Refused(answer.code, answer.payload[:200].decode(errors="replace"))
        return answer


def _records(path: str, values: Mapping[str, Value] | Value) -> list[Record]:
    base = parse_path(path)
    if isinstance(values, Mapping):
        return [Record((*base, *parse_path("/" + below)), value) for below, value in values.items()]
    if len(base) < 3:
        raise FormatError("bad_path", f"{path} is no resource: give its values by name")
    return [Record(base, values)]


def _composite(paths: Sequence[str], content_format: int, first: list[Option]) -> tuple[list[Option], bytes]:
    records = [Record(parse_path(path), None) for path in paths]
    body = formats.encode(content_format, records, ())
    return [*first, uint(CONTENT_FORMAT, content_format), uint(ACCEPT, content_format)], body
