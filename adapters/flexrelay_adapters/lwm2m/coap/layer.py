"""The message layer (RFC 7252 §4, §5.2): one answer for a message and its duplicates, requests sent again until
they are answered, and what a peer may cost.

It is told of datagrams and asked to answer or to request; sockets and security are its transports', meaning is its
handler's. Everything runs on one event loop.
"""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from flexrelay_adapters.lwm2m.coap.codes import ACK, BAD_OPTION, CON, EMPTY, NON, RST, UNDERSTOOD, code_text
from flexrelay_adapters.lwm2m.coap.message import Message, MessageError, Option, parse, serialise
from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.coap.replies import PENDING, Replies

Key = tuple[Peer, int]
SEPARATE_S: Final = 60.0
"""How long a separate response may take after its request was acknowledged."""


class NoAnswer(Exception):
    """The peer did not answer, however often it was asked, or rejected the message itself (RST)."""


class Exchange(NamedTuple):
    """A message that came in and may be answered."""

    peer: Peer
    message: Message


class Handler(Protocol):
    """What gives messages their meaning. Both are called once for a message, however often it comes."""

    def on_request(self, exchange: Exchange) -> None:
        """A request; to be answered by `MessageLayer.reply`, now or later."""
        ...

    def on_notification(self, exchange: Exchange) -> bool:
        """A response that no request waits for. False: nobody has asked for it, the layer rejects it. True: it will
        be acknowledged by `MessageLayer.acknowledge`, now or later."""
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """RFC 7252 §4.8. `rate` and `burst` bound what one peer may send (messages a second)."""

    ack_timeout_s: float = 2.0
    ack_random_factor: float = 1.5
    max_retransmit: int = 4
    rate: float = 200.0
    burst: float = 2000.0


class _Waiting:
    __slots__ = ("acknowledged", "answer")

    def __init__(self, answer: "asyncio.Future[Exchange]") -> None:
        self.answer = answer
        self.acknowledged = False


class MessageLayer:
    """Exchanges with many peers."""

    def __init__(
        self,
        handler: Handler,
        *,
        timing: Timing | None = None,
        replies: int = 100_000,
        reply_bytes: int = 32 * 2**20,
        clock: Callable[[], float],
    ) -> None:
        """`replies` and `reply_bytes` bound the memory for duplicates; `clock` is monotonic seconds."""
        self._handler = handler
        self._timing = timing or Timing()
        self._replies: Replies[Key] = Replies(replies, reply_bytes)
        self._clock = clock
        self._by_token: dict[tuple[Peer, bytes], _Waiting] = {}
        self._by_mid: dict[Key, _Waiting] = {}
        self._turns: dict[Peer, asyncio.Lock] = {}
        self.counts: Counter[str] = Counter()
        """malformed, limited, duplicate, retransmitted, unasked, unanswered."""

    @property
    def remembered(self) -> tuple[int, int]:
        """(messages, bytes) that are kept to recognise duplicates."""
        return len(self._replies), self._replies.bytes

    def receive(self, peer: Peer, data: bytes) -> None:
        """One datagram. Never raises for what stands in it."""
        now = self._clock()
        allowance = peer.allowance
        timing = self._timing
        if allowance < 0:
            allowance = timing.burst
        else:
            allowance += (now - peer.seen) * timing.rate
            if allowance > timing.burst:
                allowance = timing.burst
        peer.seen = now
        if allowance < 1:
            peer.allowance = allowance
            self.counts["limited"] += 1
            return
        peer.allowance = allowance - 1
        try:
            message = parse(data)
        except MessageError as error:
            self.counts["malformed"] += 1
            if error.kind == CON and error.mid is not None:  # §4.2
                peer.send(serialise(RST, EMPTY, error.mid))
            return
        kind, code = message.kind, message.code
        if kind >= ACK:
            self._settle(peer, message)
        elif 1 <= code < 32:
            self._request(peer, message, now)
        elif code >= 64:
            self._response(peer, message, now)
        elif kind == CON:  # a ping, or a code of a reserved class
            peer.send(serialise(RST, EMPTY, message.mid))

    def reply(self, exchange: Exchange, code: int, options: Sequence[Option] = (), payload: bytes = b"") -> None:
        """Answer a request: piggybacked where it is confirmable. The answer is kept for duplicates."""
        peer, message = exchange
        if message.kind == CON:
            data = serialise(ACK, code, message.mid, message.token, options, payload)
        else:
            data = serialise(NON, code, peer.next_mid(), message.token, options, payload)
        self._replies.answer((peer, message.mid), data)
        peer.send(data)

    def acknowledge(self, exchange: Exchange) -> None:
        """A notification is on disk."""
        peer, message = exchange
        if message.kind == CON:
            data = serialise(ACK, EMPTY, message.mid)
            self._replies.answer((peer, message.mid), data)
            peer.send(data)

    def reject(self, exchange: Exchange) -> None:
        """Tell the peer that nobody wants this; a notification's observation ends with it (RFC 7641 §3.6)."""
        peer, message = exchange
        data = serialise(RST, EMPTY, message.mid)
        self._replies.answer((peer, message.mid), data)
        peer.send(data)

    def release(self, exchange: Exchange) -> None:
        """Nothing is said; the next copy of the message is looked at as if it were the first."""
        self._replies.forget((exchange.peer, exchange.message.mid))

    def notify(
        self, peer: Peer, token: bytes, code: int, options: Sequence[Option], payload: bytes, *, kind: int = NON
    ) -> int:
        """Send a response that nothing waits for (a notification of ours); its message id."""
        mid = peer.next_mid()
        peer.send(serialise(kind, code, mid, token, options, payload))
        return mid

    async def request(
        self,
        peer: Peer,
        code: int,
        options: Sequence[Option] = (),
        payload: bytes = b"",
        *,
        token: bytes | None = None,
        sent: Callable[[], None] | None = None,
    ) -> Message:
        """The response to a confirmable request. One at a time to a peer (NSTART). Raises NoAnswer.

        `sent` is called when it has gone out for the first time. Cancelled, it is not sent again."""
        turn = self._turns.get(peer)
        if turn is None:
            turn = self._turns[peer] = asyncio.Lock()
        try:
            async with turn:
                return await self._ask(peer, code, options, payload, token, sent)
        finally:
            if not turn.locked() and self._turns.get(peer) is turn:
                del self._turns[peer]

    async def _ask(
        self,
        peer: Peer,
        code: int,
        options: Sequence[Option],
        payload: bytes,
        token: bytes | None,
        sent: Callable[[], None] | None,
    ) -> Message:
        if token is None:
            token = secrets.token_bytes(8)
        mid = peer.next_mid()
        data = serialise(CON, code, mid, token, options, payload)
        waiting = _Waiting(asyncio.get_running_loop().create_future())
        self._by_token[peer, token] = waiting
        self._by_mid[peer, mid] = waiting
        timing = self._timing
        wait_s = timing.ack_timeout_s * random.uniform(1, timing.ack_random_factor)  # noqa: S311  # jitter
        try:
            for again in range(timing.max_retransmit + 1):
                if again:
                    self.counts["retransmitted"] += 1
                peer.send(data)
                if sent is not None and not again:
                    sent()
                await asyncio.wait({waiting.answer}, timeout=wait_s)
                if waiting.acknowledged and not waiting.answer.done():
                    await asyncio.wait({waiting.answer}, timeout=SEPARATE_S)
                    break
                if waiting.answer.done():
                    break
                wait_s *= 2
            if not waiting.answer.done():
                self.counts["unanswered"] += 1
                raise NoAnswer(f"{peer} did not answer {code_text(code)}")
            return waiting.answer.result().message
        finally:
            self._by_token.pop((peer, token), None)
            self._by_mid.pop((peer, mid), None)
            waiting.answer.cancel()

    def forget(self, peer: Peer) -> None:
        """The peer is gone: what waits for it ends with NoAnswer."""
        for (other, _), waiting in list(self._by_mid.items()):
            if other is peer and not waiting.answer.done():
                waiting.answer.set_exception(NoAnswer(f"{peer} is gone"))

    def tidy(self) -> None:
        """To be called now and then: let go of what is too old to matter."""
        self._replies.expire(self._clock())

    def _request(self, peer: Peer, message: Message, now: float) -> None:
        begun = self._replies.begin((peer, message.mid), now)
        if begun is True:
            exchange = Exchange(peer, message)
            for number, _ in message.options:
                if number & 1 and number not in UNDERSTOOD:
                    self.reply(exchange, BAD_OPTION, payload=b"option %d" % number)
                    return
            self._handler.on_request(exchange)
            return
        self.counts["duplicate"] += 1
        if begun != PENDING:
            peer.send(begun)

    def _response(self, peer: Peer, message: Message, now: float) -> None:
        """A separate response or a notification."""
        begun = self._replies.begin((peer, message.mid), now)
        if begun is not True:
            self.counts["duplicate"] += 1
            if begun != PENDING:
                peer.send(begun)
            return
        exchange = Exchange(peer, message)
        waiting = self._by_token.get((peer, message.token))
        if waiting is not None:
            self.acknowledge(exchange)
            if not waiting.answer.done():
                waiting.answer.set_result(exchange)
        elif not self._handler.on_notification(exchange):
            self.counts["unasked"] += 1
            self.reject(exchange)

    def _settle(self, peer: Peer, message: Message) -> None:
        waiting = self._by_mid.get((peer, message.mid))
        if waiting is None or waiting.answer.done():
            return
        if message.kind == RST:
            waiting.answer.set_exception(NoAnswer(f"{peer} rejected the message"))
        elif message.code == EMPTY:
            waiting.acknowledged = True
        elif self._by_token.get((peer, message.token)) is waiting:
            waiting.answer.set_result(Exchange(peer, message))
