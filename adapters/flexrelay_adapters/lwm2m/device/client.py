"""One LwM2M client: registers, sends, notifies, and answers what the server asks of its objects."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from flexrelay_adapters.lwm2m import formats
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.blockwise import Assemblies, Block, Incomplete, slice_of, transfer
from flexrelay_adapters.lwm2m.coap.codes import ACCEPT, BLOCK1, BLOCK2, CONTENT_FORMAT, OBSERVE, URI_QUERY
from flexrelay_adapters.lwm2m.coap.layer import Exchange, MessageLayer, NoAnswer, Timing
from flexrelay_adapters.lwm2m.coap.message import Message, Option, path_options, uint
from flexrelay_adapters.lwm2m.coap.peer import Address, Peer
from flexrelay_adapters.lwm2m.device.link import Link, Security
from flexrelay_adapters.lwm2m.device.tree import Tree
from flexrelay_adapters.lwm2m.formats import FormatError, Path, Record, Value, parse_path
from flexrelay_adapters.lwm2m.links import links_text


class NotRegistered(Exception):
    """The server refuses; `code` is its answer."""

    def __init__(self, code: int) -> None:
        super().__init__(codes.code_text(code))
        self.code = code


class _Observed:
    """What the server observes: paths, format, and the count of the last notification."""

    def __init__(self, paths: Sequence[Path], content_format: int) -> None:
        self.paths = tuple(paths)
        self.content_format = content_format
        self.count = 1


class DeviceClient:
    """`local` is the address to send from. Not registered until `register`; `close` ends it."""

    def __init__(
        self,
        server: Address,
        name: str,
        tree: Tree,
        *,
        security: Security | None = None,
        local: str = "127.0.0.1",
        lifetime_s: int = 300,
        version: str = "1.1",
        queue: bool = False,
        timing: Timing | None = None,
    ) -> None:
        self.name = name
        self.tree = tree
        self._security = security
        self._local = local
        self._lifetime_s = lifetime_s
        self._version = version
        self._queue = queue
        self.layer = MessageLayer(self, timing=timing, replies=1_000, reply_bytes=2**20, clock=time.monotonic)
        self._link = Link(server, self.layer.receive)
        self._assemblies = Assemblies(most=8, most_bytes=2**20, body_bytes=2**18)
        self._location = ""
        self._observed: dict[bytes, _Observed] = {}
        self.bootstrapped = asyncio.Event()

    async def open(self) -> None:
        """Raises ConnectionError, OSError."""
        await self._link.open(self._local, self._security)

    @property
    def address(self) -> Address:
        return self._link.address

    @property
    def registered(self) -> bool:
        return bool(self._location)

    async def register(self) -> None:
        """Raises NotRegistered, NoAnswer."""
        query = [f"ep={self.name}", f"lt={self._lifetime_s}", f"lwm2m={self._version}"]
        if self._version == "1.0":
            query.append("b=UQ" if self._queue else "b=U")
        else:
            query += ["b=U", "Q"] if self._queue else ["b=U"]
        options = [*path_options("/rd"), uint(CONTENT_FORMAT, codes.LINK), *_queries(query)]
        body = links_text(tuple(path for path in self.tree.instances() if path[0] != 0)).encode()
        answer = await self.ask(codes.POST, options, body)
        if answer.code != codes.CREATED:
            raise NotRegistered(answer.code)
        location = [value.decode() for number, value in answer.options if number == codes.LOCATION_PATH]
        self._location = "/" + "/".join(location)

    async def update(self) -> None:
        """Raises NotRegistered when the server does not know it (any more), NoAnswer."""
        answer = await self.ask(codes.POST, path_options(self._location or "/rd/none"))
        if answer.code != codes.CHANGED:
            self._location = ""
            raise NotRegistered(answer.code)

    async def deregister(self) -> None:
        if self._location:
            await self.ask(codes.DELETE, path_options(self._location))
            self._location = ""

    async def send(self, records: Sequence[Record], content_format: int = codes.SENML_CBOR) -> int:
        """Send (OMA Core §6.4.6); the code of the answer. Raises NoAnswer."""
        body = formats.encode(content_format, records, ())
        options = [*path_options("/dp"), uint(CONTENT_FORMAT, content_format)]
        return (await self.ask(codes.POST, options, body)).code

    async def bootstrap(self) -> None:
        """Ask for an account and wait for the end of the bootstrap. Raises NotRegistered, NoAnswer, TimeoutError."""
        answer = await self.ask(codes.POST, [*path_options("/bs"), *_queries([f"ep={self.name}"])])
        if answer.code != codes.CHANGED:
            raise NotRegistered(answer.code)
        async with asyncio.timeout(30):
            await self.bootstrapped.wait()

    def change(self, values: Mapping[Path, Value]) -> None:
        """New values of its own; whoever observes one of them is notified."""
        self.tree.values.update(values)
        peer = self._link.peer
        if peer is None:
            return
        for token, observed in list(self._observed.items()):
            if any(path[: len(asked)] == asked for path in values for asked in observed.paths):
                observed.count = observed.count + 1 & 0xFFFFFF
                options, payload = self._content(observed.paths, observed.content_format)
                options = [uint(OBSERVE, observed.count), *options]
                self.layer.notify(peer, token, codes.CONTENT, options, payload, kind=codes.CON)

    async def ask(self, code: int, options: Sequence[Option], body: bytes = b"") -> Message:
        """Raises NoAnswer."""
        peer = self._link.peer
        if peer is None:
            raise NoAnswer("there is no connection")
        return await transfer(self.layer, peer, code, options, body)

    def close(self, *, say: bool = True) -> None:
        self._link.close(say=say)
        self._location = ""

    # coap.layer.Handler

    def on_notification(self, exchange: Exchange) -> bool:
        return False

    def on_request(self, exchange: Exchange) -> None:
        try:
            code, options, payload = self._answer(exchange.peer, exchange.message)
        except Incomplete as error:
            code, options, payload = error.code, [], b""
        except (FormatError, ValueError) as error:
            code, options, payload = codes.BAD_REQUEST, [], str(error).encode()[:100]
        if not code:
            return  # deaf
        block = exchange.message.option(BLOCK1)
        if block is not None:
            options = [*options, (BLOCK1, block)]
        self.layer.reply(exchange, code, options, payload)

    def _answer(self, peer: Peer, message: Message) -> tuple[int, list[Option], bytes]:
        segments = message.path()
        payload = message.payload
        value = message.option(BLOCK1)
        if value is not None:
            block = Block.of(value)
            body = self._assemblies.add(peer, (message.code, segments), block, payload, time.monotonic())
            if body is None:
                return codes.CONTINUE, [], b""
            payload = body
        if segments == ("bs",):
            self.bootstrapped.set()
            return codes.CHANGED, [], b""
        path = parse_path("/" + "/".join(segments))
        match message.code:
            case codes.GET:
                return self._read(message, path)
            case codes.FETCH:
                return self._fetch(message, payload)
            case codes.IPATCH:
                return self.tree.write(self._decode(message, payload, ())), [], b""
            case codes.DELETE:
                return self._delete(path), [], b""
            case codes.PUT | codes.POST:
                return self._write(message, path, payload), [], b""
        return codes.METHOD_NOT_ALLOWED, [], b""

    def _read(self, message: Message, path: Path) -> tuple[int, list[Option], bytes]:
        if not self.tree.has(path):
            return codes.NOT_FOUND, [], b""
        accept = message.uint(ACCEPT)
        if accept == codes.LINK:
            part, options = slice_of(self.tree.links(path).encode(), message.option(BLOCK2))
            return codes.CONTENT, [uint(CONTENT_FORMAT, codes.LINK), *options], part
        return self._observable(message, [path], accept)

    def _fetch(self, message: Message, payload: bytes) -> tuple[int, list[Option], bytes]:
        paths = [record.path for record in self._decode(message, payload, ())]
        return self._observable(message, paths, message.uint(ACCEPT))

    def _observable(
        self, message: Message, paths: Sequence[Path], accept: int | None
    ) -> tuple[int, list[Option], bytes]:
        content_format = codes.SENML_CBOR if accept is None else accept
        if content_format not in formats.FORMATS:
            return codes.NOT_ACCEPTABLE, [], b""
        options, body = self._content(paths, content_format)
        observe = message.uint(OBSERVE)
        if observe == 0:
            self._observed[message.token] = _Observed(paths, content_format)
            options = [uint(OBSERVE, 1), *options]
        elif observe == 1:
            self._observed.pop(message.token, None)
        part, more = slice_of(body, message.option(BLOCK2))
        return codes.CONTENT, [*options, *more], part

    def _content(self, paths: Sequence[Path], content_format: int) -> tuple[list[Option], bytes]:
        records = [record for path in paths for record in self.tree.below(path)]
        base = paths[0] if len(paths) == 1 else ()
        body = formats.encode(content_format, records, base[:2] if content_format == codes.TLV else base)
        return [uint(CONTENT_FORMAT, content_format)], body

    def _write(self, message: Message, path: Path, payload: bytes) -> int:
        queries = [value.decode() for number, value in message.options if number == URI_QUERY]
        if message.code == codes.PUT and queries and not payload:
            for query in queries:
                name, _, value = query.partition("=")
                self.tree.attributes.setdefault(path, {})[name] = value
            return codes.CHANGED if self.tree.has(path) else codes.NOT_FOUND
        if message.code == codes.POST and len(path) == 3:
            return self.tree.execute(path, payload.decode(errors="replace"))
        records = self._decode(message, payload, path)
        if len(path) == 1:
            return self.tree.create(records)
        if path[0] in (0, 1) and not self.registered:
            return self.tree.create(records) and codes.CHANGED  # a bootstrap
        return self.tree.write(records)

    def _delete(self, path: Path) -> int:
        if path in ((0,), (1,)) and not self.registered:
            # a bootstrap: all accounts but that of the bootstrap server, which is instance 0 (OMA Core §6.1.7.4)
            for own in list(self.tree.values):
                if own[0] == path[0] and own[:2] != (0, 0):
                    del self.tree.values[own]
            return codes.DELETED
        return self.tree.delete(path)

    def _decode(self, message: Message, payload: bytes, base: Path) -> list[Record]:
        return formats.decode(message.uint(CONTENT_FORMAT) or 0, payload, base, time.time())


def _queries(texts: Sequence[str]) -> list[Option]:
    return [(URI_QUERY, text.encode()) for text in texts]
