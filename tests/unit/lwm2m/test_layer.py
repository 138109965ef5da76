"""The message layer by hand: duplicates, retransmission, separate answers, resets, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.blockwise import Assemblies, Block, Incomplete, slice_of, transfer
from flexrelay_adapters.lwm2m.coap.layer import Exchange, MessageLayer, NoAnswer, Timing
from flexrelay_adapters.lwm2m.coap.message import Message, parse, path_options, serialise, uint
from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.coap.replies import LIFETIME_S, PENDING, Replies
from flexrelay_sdk.testkit import until

QUICK = Timing(ack_timeout_s=0.02, ack_random_factor=1.0, max_retransmit=2)


class Bench:
    """A layer, one peer, and what went out to it."""

    def __init__(self, timing: Timing = QUICK) -> None:
        self.out: list[Message] = []
        self.requests: list[Exchange] = []
        self.notifications: list[Exchange] = []
        self.wanted = True
        self.now = 1000.0
        self.layer = MessageLayer(self, timing=timing, replies=100, reply_bytes=2**16, clock=lambda: self.now)
        self.peer = Peer(("127.0.0.1", 5), "meter", False, self._sent)
        self.on_sent: Callable[[Message], None] = lambda message: None

    def _sent(self, data: bytes) -> None:
        self.out.append(parse(data))
        self.on_sent(self.out[-1])

    def on_request(self, exchange: Exchange) -> None:
        self.requests.append(exchange)

    def on_notification(self, exchange: Exchange) -> bool:
        self.notifications.append(exchange)
        return self.wanted

    def come(
        self, kind: int, code: int, mid: int, token: bytes = b"", *options: tuple[int, bytes], payload: bytes = b""
    ) -> None:
        self.layer.receive(self.peer, serialise(kind, code, mid, token, options, payload))


def test_a_duplicate_gets_the_same_answer_and_is_handled_once() -> None:
    bench = Bench()
    for _ in range(3):
        bench.come(codes.CON, codes.POST, 7, b"t")
    assert len(bench.requests) == 1 and bench.out == []  # nothing is said while it is worked on
    bench.layer.reply(bench.requests[0], codes.CHANGED)
    bench.come(codes.CON, codes.POST, 7, b"t")
    assert [(m.kind, m.code, m.mid, m.token) for m in bench.out] == [(codes.ACK, codes.CHANGED, 7, b"t")] * 2
    bench.now += LIFETIME_S + 1
    bench.come(codes.CON, codes.POST, 7, b"t")
    assert len(bench.requests) == 2


def test_what_was_released_is_looked_at_again() -> None:
    bench = Bench()
    bench.come(codes.CON, codes.POST, 7)
    bench.layer.release(bench.requests[0])
    bench.come(codes.CON, codes.POST, 7)
    assert len(bench.requests) == 2 and bench.out == []


def test_a_non_confirmable_request_is_answered_so() -> None:
    bench = Bench()
    bench.come(codes.NON, codes.GET, 9, b"t")
    bench.layer.reply(bench.requests[0], codes.CONTENT, payload=b"x")
    (answer,) = bench.out
    assert (answer.kind, answer.code, answer.token) == (codes.NON, codes.CONTENT, b"t")


def test_critical_options_that_are_not_known_are_refused() -> None:
    bench = Bench()
    bench.come(codes.CON, codes.GET, 1, b"", (9, b"oscore"))
    bench.come(codes.CON, codes.GET, 2, b"", (2048 + 2, b"elective"))
    assert [m.code for m in bench.out] == [codes.BAD_OPTION] and len(bench.requests) == 1


def test_pings_and_malformed_messages_are_reset() -> None:
    bench = Bench()
    bench.come(codes.CON, codes.EMPTY, 5)
    bench.layer.receive(bench.peer, b"\x40\x01\x00\x06\xff")  # a marker without a payload
    bench.layer.receive(bench.peer, b"\x50\x01\x00\x07\xff")  # not confirmable: silence
    bench.layer.receive(bench.peer, b"")
    assert [(m.kind, m.mid) for m in bench.out] == [(codes.RST, 5), (codes.RST, 6)]
    assert bench.layer.counts["malformed"] == 3


def test_notifications_are_acknowledged_when_told_and_rejected_when_nobody_asked() -> None:
    bench = Bench()
    bench.come(codes.CON, codes.CONTENT, 5, b"observed")
    assert bench.out == []
    bench.layer.acknowledge(bench.notifications[0])
    bench.come(codes.CON, codes.CONTENT, 5, b"observed")
    bench.wanted = False
    bench.come(codes.NON, codes.CONTENT, 6, b"unknown")
    assert [(m.kind, m.code, m.mid) for m in bench.out] == [(codes.ACK, 0, 5), (codes.ACK, 0, 5), (codes.RST, 0, 6)]
    assert len(bench.notifications) == 2


def test_one_peer_cannot_have_more_than_its_rate() -> None:
    bench = Bench(Timing(rate=10, burst=20))
    for mid in range(100):
        bench.come(codes.CON, codes.GET, mid)
    assert len(bench.requests) == 20 and bench.layer.counts["limited"] == 80
    bench.now += 1
    for mid in range(100, 200):
        bench.come(codes.CON, codes.GET, mid)
    assert len(bench.requests) == 30


async def test_a_request_is_sent_again_until_it_is_answered() -> None:
    bench = Bench()

    def answer_the_second(message: Message) -> None:
        if len(bench.out) == 2:
            bench.come(codes.ACK, codes.CONTENT, message.mid, message.token, payload=b"v")

    bench.on_sent = answer_the_second
    answer = await bench.layer.request(bench.peer, codes.GET, path_options("/3/0"))
    assert answer.payload == b"v" and bench.out[0] == bench.out[1]


async def test_a_separate_answer_is_acknowledged() -> None:
    bench = Bench()

    def first_only_the_acknowledgement(message: Message) -> None:
        if message.code == codes.GET:
            bench.come(codes.ACK, codes.EMPTY, message.mid)
            asyncio.get_running_loop().call_later(
                0.1, lambda: bench.come(codes.CON, codes.CONTENT, 77, message.token, payload=b"late")
            )

    bench.on_sent = first_only_the_acknowledgement
    answer = await bench.layer.request(bench.peer, codes.GET)
    assert answer.payload == b"late"
    assert [(m.kind, m.code) for m in bench.out] == [(codes.CON, codes.GET), (codes.ACK, codes.EMPTY)]


async def test_no_answer_a_reset_and_a_peer_that_goes() -> None:
    bench = Bench()
    with pytest.raises(NoAnswer, match="did not answer"):
        await bench.layer.request(bench.peer, codes.GET)
    assert len(bench.out) == 3
    bench.on_sent = lambda message: bench.come(codes.RST, codes.EMPTY, message.mid)
    with pytest.raises(NoAnswer, match="rejected"):
        await bench.layer.request(bench.peer, codes.GET)
    bench.on_sent = lambda message: bench.layer.forget(bench.peer)
    with pytest.raises(NoAnswer, match="gone"):
        await bench.layer.request(bench.peer, codes.GET)


async def test_requests_to_one_peer_go_one_after_the_other() -> None:
    bench = Bench(Timing(ack_timeout_s=5))
    asking = [asyncio.create_task(bench.layer.request(bench.peer, codes.GET)) for _ in range(3)]
    for count in (1, 2, 3):
        await until(lambda n=count: len(bench.out) >= n)  # type: ignore[misc]  # bound now
        assert len(bench.out) == count
        message = bench.out[-1]
        bench.come(codes.ACK, codes.CONTENT, message.mid, message.token)
    await asyncio.gather(*asking)
    assert bench.layer._turns == {} and bench.layer._by_mid == {} and bench.layer._by_token == {}


async def test_an_answer_in_blocks_is_fetched() -> None:
    bench = Bench()
    body = bytes(range(256)) * 10

    def serve(message: Message) -> None:
        part, options = slice_of(body, message.option(codes.BLOCK2))
        bench.come(codes.ACK, codes.CONTENT, message.mid, message.token, *options, payload=part)

    bench.on_sent = serve
    answer = await transfer(bench.layer, bench.peer, codes.GET, path_options("/3305"))
    assert answer.payload == body and len(bench.out) == 3
    with pytest.raises(NoAnswer, match="too many"):
        await transfer(bench.layer, bench.peer, codes.GET, path_options("/3305"), most=1000)


def test_a_peer_that_begins_many_bodies_ends_no_other_peers() -> None:
    patient, hasty = Bench().peer, Bench().peer
    bodies = Assemblies(most=10, most_bytes=10_000, body_bytes=4_000)
    assert bodies.add(patient, "a", Block(0, True, 16), bytes(16), 0.0) is None
    for number in range(50):
        assert bodies.add(hasty, number, Block(0, True, 16), bytes(16), 0.0) is None
    assert len(bodies) == 5 and bodies.bytes == 5 * 16
    assert bodies.add(patient, "a", Block(1, False, 16), b"end", 0.0) == bytes(16) + b"end"
    bodies.tidy(100.0)
    assert len(bodies) == 0 and bodies.bytes == 0 and bodies._of == {}


async def test_empty_blocks_without_end_are_no_answer() -> None:
    bench = Bench()
    more = uint(codes.BLOCK2, 0x0E)
    bench.on_sent = lambda message: bench.come(codes.ACK, codes.CONTENT, message.mid, message.token, more)
    with pytest.raises(NoAnswer, match="empty block"):
        await transfer(bench.layer, bench.peer, codes.GET, path_options("/3305"))


def test_bodies_in_blocks() -> None:
    peer = Bench().peer
    bodies = Assemblies(most=2, most_bytes=10_000, body_bytes=4_000)
    first, second = bytes(1024), bytes(100)
    assert bodies.add(peer, "a", Block(0, True, 1024), first, 0.0) is None
    assert bodies.add(peer, "a", Block(1, False, 1024), second, 0.0) == first + second
    assert bodies.add(peer, "a", Block(0, False, 1024), second, 0.0) == second
    with pytest.raises(Incomplete):  # nothing before it
        bodies.add(peer, "b", Block(3, True, 1024), first, 0.0)
    bodies.add(peer, "c", Block(0, True, 1024), first, 0.0)
    with pytest.raises(Incomplete):  # only the last may be short
        bodies.add(peer, "c", Block(1, True, 1024), second, 0.0)
    bodies.add(peer, "d", Block(0, True, 1024), first, 0.0)
    for number in (1, 2):
        bodies.add(peer, "d", Block(number, True, 1024), first, 0.0)
    with pytest.raises(Incomplete) as error:
        bodies.add(peer, "d", Block(3, True, 1024), first, 0.0)
    assert error.value.code == codes.TOO_LARGE
    for name in "efgh":
        bodies.add(peer, name, Block(0, True, 1024), first, 1.0)
    assert len(bodies) == 2 and bodies.bytes == 2048
    bodies.tidy(1000.0)
    assert len(bodies) == 0 and bodies.bytes == 0


def test_block_options() -> None:
    for block in (Block(0, True, 16), Block(5, False, 1024), Block(2**20 - 1, True, 512)):
        number, value = block.option(codes.BLOCK1)
        assert number == codes.BLOCK1 and Block.of(value) == block
    with pytest.raises(ValueError, match="reserved"):
        Block.of(b"\x07")
    with pytest.raises(ValueError, match="no such block"):
        slice_of(b"abc", uint(codes.BLOCK2, 9 << 4 | 6)[1])


def test_the_memory_for_duplicates_is_bounded() -> None:
    replies: Replies[int] = Replies(10, 10_000)
    for key in range(100):
        assert replies.begin(key, 0.0) is True
        replies.answer(key, bytes(10))
    assert len(replies) == 10 and replies.forgotten == 90 and replies.begin(99, 0.0) == bytes(10)
    for key in range(200, 205):
        replies.begin(key, 0.0)
        replies.answer(key, bytes(5_000))
    assert replies.bytes <= 10_000 and replies.begin(204, 0.0) != PENDING
    replies.expire(LIFETIME_S + 1)
    assert len(replies) == 0 and replies.bytes == 0
    replies.answer(1, b"late")
    assert len(replies) == 0
