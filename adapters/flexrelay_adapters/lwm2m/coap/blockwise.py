"""Block-wise transfers (RFC 7959): bodies larger than a datagram, in both directions.

`Assemblies` collects what peers send in blocks, bounded in number, bytes and time; `transfer` sends a request of any
size and fetches an answer of any size; `slice_of` cuts our own large answers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from flexrelay_adapters.lwm2m.coap.codes import BLOCK1, BLOCK2, CONTENT, CONTINUE, GET, OBSERVE, TOO_LARGE, code_text
from flexrelay_adapters.lwm2m.coap.layer import MessageLayer, NoAnswer
from flexrelay_adapters.lwm2m.coap.message import Message, Option, uint
from flexrelay_adapters.lwm2m.coap.peer import Peer

SIZE: Final = 1024
OF_ONE: Final = 4
"""Bodies of one peer that are under way: it has no more requests at a time, and takes no other's place."""


class Block(NamedTuple):
    """A block option's value (§2.2): its number, whether more follow, and its size in bytes."""

    number: int
    more: bool
    size: int

    @classmethod
    def of(cls, value: bytes) -> "Block":
        """Raises ValueError."""
        if len(value) > 3:
            raise ValueError("a block option has at most 3 bytes")
        whole = int.from_bytes(value, "big")
        if whole & 7 == 7:
            raise ValueError("a reserved block size")
        return cls(whole >> 4, bool(whole & 8), 1 << (whole & 7) + 4)

    def option(self, number: int) -> Option:
        return uint(number, self.number << 4 | (8 if self.more else 0) | self.size.bit_length() - 5)


class Incomplete(Exception):
    """A block that does not follow the one before, or too large a body; `code` is the answer."""

    def __init__(self, code: int) -> None:
        super().__init__(code_text(code))
        self.code = code


@dataclass(slots=True)
class _Body:
    at: float
    data: bytearray = field(default_factory=bytearray)


class Assemblies:
    """Bodies under way by peer and resource. Bounded: the oldest goes when there are too many of one peer or of all."""

    def __init__(self, *, most: int, most_bytes: int, body_bytes: int, lifetime_s: float = 93.0) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._body_bytes = body_bytes
        self._lifetime_s = lifetime_s
        self._bodies: dict[tuple[Peer, object], _Body] = {}
        self._of: dict[Peer, list[tuple[Peer, object]]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._bodies)

    def add(self, peer: Peer, resource: object, block: Block, payload: bytes, now: float) -> bytes | None:
        """The whole body with its last block, None before. Raises Incomplete."""
        key = (peer, resource)
        if block.number == 0:
            self._drop(key)
            if not block.more:
                return payload
            self._make_room(peer, now)
            self._bodies[key] = _Body(now)
            self._of.setdefault(peer, []).append(key)
        body = self._bodies.get(key)
        if body is None or block.number * block.size != len(body.data):
            self._drop(key)
            raise Incomplete(0x88)  # 4.08
        if block.more and len(payload) != block.size:
            self._drop(key)
            raise Incomplete(0x80)  # 4.00: only the last block may be short
        if len(body.data) + len(payload) > self._body_bytes or self.bytes + len(payload) > self._most_bytes:
            self._drop(key)
            raise Incomplete(TOO_LARGE)
        body.data += payload
        body.at = now
        self.bytes += len(payload)
        if block.more:
            return None
        self._drop(key)
        return bytes(body.data)

    def tidy(self, now: float) -> None:
        """Let go of bodies that nobody continues."""
        for key in [key for key, body in self._bodies.items() if now - body.at > self._lifetime_s]:
            self._drop(key)

    def _make_room(self, peer: Peer, now: float) -> None:
        own = self._of.get(peer, [])
        if len(own) >= OF_ONE:
            self._drop(own[0])
        if len(self._bodies) >= self._most:
            self.tidy(now)
        while len(self._bodies) >= self._most:
            self._drop(next(iter(self._bodies)))

    def _drop(self, key: tuple[Peer, object]) -> None:
        body = self._bodies.pop(key, None)
        if body is not None:
            self.bytes -= len(body.data)
            own = self._of[key[0]]
            own.remove(key)
            if not own:
                del self._of[key[0]]


def slice_of(body: bytes, asked: bytes | None) -> tuple[bytes, list[Option]]:
    """The block of an answer that a request's Block2 asks for (the first when it asks for none), and its option.

    Raises ValueError for a bad option or a block beyond the end.
    """
    block = Block.of(asked) if asked is not None else Block(0, False, SIZE)
    size = min(block.size, SIZE)
    start = block.number * block.size
    if asked is None and len(body) <= size:
        return body, []
    if start > len(body) or (start == len(body) and start):
        raise ValueError("there is no such block")
    end = start + size
    return body[start:end], [Block(start // size, end < len(body), size).option(BLOCK2)]


async def transfer(
    layer: MessageLayer,
    peer: Peer,
    code: int,
    options: Sequence[Option] = (),
    payload: bytes = b"",
    *,
    token: bytes | None = None,
    most: int = 256 * 1024,
    sent: Callable[[], None] | None = None,
) -> Message:
    """The answer to a request, with its whole body. Raises NoAnswer; also when the body is larger than `most` bytes.

    `sent` is called when the first of it has gone out.
    """
    answer = await _send(layer, peer, code, options, payload, token, sent)
    if answer.option(BLOCK2) is None:
        return answer
    rest = [option for option in options if option[0] not in (OBSERVE, BLOCK1)]
    return await complete(layer, peer, code, rest, payload, answer, most)


async def complete(
    layer: MessageLayer,
    peer: Peer,
    code: int,
    options: Sequence[Option],
    payload: bytes,
    first: Message,
    most: int = 256 * 1024,
) -> Message:
    """`first` with its whole body: what its Block2 says is still missing is fetched. Raises NoAnswer."""
    value = first.option(BLOCK2)
    if value is None:
        return first
    body = bytearray(first.payload)
    try:
        block = Block.of(value)
        while block.more:
            following = Block(len(body) // block.size, False, block.size)
            if len(body) % block.size or len(body) > most:
                raise ValueError("the blocks do not fit, or there are too many")
            asked = [*options, following.option(BLOCK2)]
            part = await layer.request(peer, code, asked, payload if code != GET and len(payload) <= SIZE else b"")
            value = part.option(BLOCK2)
            if part.code != CONTENT or value is None:
                raise ValueError(f"block {following.number} was answered {code_text(part.code)}")
            block = Block.of(value)
            if block.number * block.size != len(body):
                raise ValueError("another block than asked for")
            if block.more and not part.payload:
                raise ValueError("an empty block that is not the last")
            body += part.payload
    except ValueError as error:
        raise NoAnswer(f"{peer}: block-wise answer: {error}") from None
    return first._replace(payload=bytes(body))


async def _send(
    layer: MessageLayer,
    peer: Peer,
    code: int,
    options: Sequence[Option],
    payload: bytes,
    token: bytes | None,
    sent: Callable[[], None] | None,
) -> Message:
    if len(payload) <= SIZE:
        return await layer.request(peer, code, options, payload, token=token, sent=sent)
    size, start = SIZE, 0
    while True:
        end = start + size
        block = Block(start // size, end < len(payload), size)
        answer = await layer.request(
            peer, code, [*options, block.option(BLOCK1)], payload[start:end], token=token, sent=sent
        )
        sent = None
        if not block.more or answer.code != CONTINUE:
            return answer
        value = answer.option(BLOCK1)
        try:
            granted = Block.of(value).size if value is not None else size
        except ValueError as error:
            raise NoAnswer(f"{peer}: {error}") from None
        start = end
        if granted < size:  # §2.5: the peer asks for smaller ones from now on
            size = granted
