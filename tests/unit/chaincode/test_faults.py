"""What goes wrong around a call: the reply always comes, the stream survives, nothing private is told."""

import asyncio
import logging
import secrets
from typing import Any

import pytest
from unit.chaincode.network import Network, failure, network, now
from unit.chaincode.peer import Client, Message, transaction

from flexrelay_chaincode import wire
from flexrelay_chaincode.call import Call
from flexrelay_chaincode.failure import Rejected
from flexrelay_contracts.invocation import query_args, submit_args

PUT = ("probe.put", {"key": "a", "value": "1"})


async def running_calls(net: Network, count: int) -> None:
    while f"calls_running {count}\n" not in net.server.text():  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # calls run in threads


async def put_in_time(net: Network, tx_id: str = "") -> None:
    """A good call; once more where its short time ran out on a machine that stood still."""
    while (result := await net.submit(*PUT, tx_id=tx_id)).status != 200:
        assert failure(result) == ("rejected", "deadline")


@pytest.mark.parametrize("kind", ["GET_STATE_MULTIPLE", "WRITE_BATCH_STATE"])
async def test_an_error_of_the_peer_fails_the_call(kind: str) -> None:
    async with network() as net:
        net.peer.failing[kind] = "disk full"
        result = await net.submit(*PUT)
        assert failure(result) == ("rejected", "peer_error")
        assert "disk full" in result.message
        net.peer.failing.clear()
        assert (await net.submit(*PUT)).status == 200


async def test_a_failed_write_is_never_committed_on_2_5() -> None:
    async with network({"write_batch": 0, "multiple": 0}) as net:
        net.peer.failing["PUT_STATE"] = "no"
        assert failure(await net.submit(*PUT)) == ("rejected", "peer_error")


@pytest.mark.parametrize("kind", ["GET_STATE_MULTIPLE", "WRITE_BATCH_STATE"])
async def test_a_peer_that_does_not_answer_meets_the_deadline(kind: str) -> None:
    async with network(call_timeout_s=1.0) as net:
        net.peer.silent.add(kind)
        tx_id = secrets.token_hex(32)
        assert failure(await net.submit(*PUT, tx_id=tx_id)) == ("rejected", "deadline")
        net.peer.silent.clear()
        assert failure(await net.submit(*PUT, tx_id=tx_id)) == ("rejected", "deadline")  # its answer may still come
        await put_in_time(net)


async def test_a_late_answer_goes_to_nobody() -> None:
    async with network(call_timeout_s=1.0) as net:
        net.peer.delay_s = 1.5
        tx_id = secrets.token_hex(32)
        assert failure(await net.submit(*PUT, tx_id=tx_id)) == ("rejected", "deadline")
        await asyncio.sleep(1.0)
        net.peer.delay_s = 0.0
        await put_in_time(net, tx_id)


async def test_more_calls_than_allowed_are_told_so() -> None:
    async with network({"multiple": 1000}, max_calls=4, threads=2) as net:
        net.peer.gate.clear()
        first = [asyncio.create_task(net.submit(*PUT)) for _ in range(4)]
        await running_calls(net, 4)
        results = await asyncio.gather(*(net.submit(*PUT) for _ in range(6)))
        assert [failure(result) for result in results] == [("rejected", "busy")] * 6
        net.peer.gate.set()
        assert [(await task).status for task in first] == [200] * 4
        assert (await net.submit(*PUT)).status == 200


async def test_calls_run_side_by_side() -> None:
    async with network() as net:
        net.peer.delay_s = 0.01
        results = await asyncio.gather(
            *(net.submit("probe.put", {"key": f"k{number}", "value": str(number)}) for number in range(100))
        )
        assert [result.status for result in results] == [200] * 100
        assert [result.writes[f"k{number}"] for number, result in enumerate(results)] == [
            str(number).encode() for number in range(100)
        ]
        assert net.peer.broken == ""


@pytest.mark.parametrize("distance", [-120_000, 120_000])
async def test_a_timestamp_beyond_the_guard_is_rejected(distance: int) -> None:
    async with network() as net:
        result = await net.submit(*PUT, time_ms=now() + distance)
        assert failure(result) == ("rejected", "timestamp")
        assert result.requests == []


async def test_a_function_comes_in_by_its_entry_only() -> None:
    async with network(entries={"strict": "flexrelay-strict"}) as net:
        put: dict[str, Any] = {"key": "a", "value": "1"}
        assert failure(await net.submit("strict.put", put)) == ("rejected", "wrong_entry")
        assert (await net.submit("strict.put", put, chaincode="flexrelay-strict")).status == 200
        assert failure(await net.submit("probe.put", put, chaincode="flexrelay-strict")) == ("rejected", "wrong_entry")


@pytest.mark.parametrize(
    "args",
    [[], [b"submit"], [b"drop", b"x"], [b"query", b"probe.get"], [b"query", b"\xff", b"{}"], [b"query", b"a", b"[1]"]],
)
async def test_malformed_calls(args: list[bytes]) -> None:
    async with network() as net:
        assert failure(await net.peer.call(args, client=net.client)) == ("rejected", "malformed_call")


@pytest.mark.parametrize("intent", [b"", b"{", b"\xff\xfe", b"[]", b'{"intent":{"v":2}}', b"x" * 1_100_000])
async def test_malformed_intents_reach_the_contracts_refusal(intent: bytes) -> None:
    async with network() as net:
        result = await net.peer.call(submit_args(intent), client=net.client)
        assert failure(result)[0] == "refused"


@pytest.mark.parametrize("certificate", [b"", b"no certificate", b"\x00\xff"])
async def test_a_creator_without_a_certificate(certificate: bytes) -> None:
    async with network() as net:
        stranger = Client("dso", certificate, "")
        result = await net.peer.call(query_args("probe.get", {"key": "a"}), client=stranger)
        assert failure(result) == ("rejected", "malformed_call")


async def test_the_stream_survives_whatever_the_peer_sends() -> None:
    async with network() as net:
        message = transaction(query_args("probe.get", {"key": "a"}), net.client, tx_id="ab" * 32)
        for field in ("payload", "proposal"):
            broken = Message.FromString(message.SerializeToString())
            if field == "payload":
                broken.payload = b"\xff\xff"
            else:
                broken.proposal.proposal_bytes = b"\xff\xff"
            broken.txid = secrets.token_hex(32)
            assert failure(await net.peer.execute(broken)) == ("rejected", "malformed_call")
        init = transaction([b"init"], net.client, tx_id="cd" * 32)
        init.type = Message.INIT
        assert failure(await net.peer.execute(init)) == ("rejected", "malformed_call")
        await net.peer.send_bytes(b"\xff\xff\xff")
        for kind in (*range(26), 4711):
            if kind not in (Message.TRANSACTION, Message.INIT):
                await net.peer.send(Message(type=kind, txid="none", channel_id="market", payload=b"\xff"))
        assert (await net.submit(*PUT)).status == 200


async def test_an_answer_beyond_the_message_limit() -> None:
    async with network(max_message_bytes=64 * 1024) as net:
        net.peer.state |= {f"r{number:04}": b"x" * 100 for number in range(900)}
        result = await net.peer.call(query_args("probe.range", {"start": "r", "end": "s"}), client=net.client)
        assert failure(result) == ("rejected", "too_large")
        assert (await net.submit(*PUT)).status == 200


def test_a_request_beyond_the_message_limit_is_not_sent_and_breaks_the_call() -> None:
    sent: list[bytes] = []
    call = Call(Message(txid="ab", channel_id="market"), sent.append, timeout_s=1.0, max_bytes=10)
    for payload in (b"x" * 11, b"x"):  # a contract that goes on after the error gets the same one
        with pytest.raises(Rejected, match="too_large"):
            call.ask(Message.PUT_STATE, payload)
    assert sent == [] and not call.open


async def test_nothing_private_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with network() as net:
        secret = {"collection": "sealed", "key": "p"}
        await net.submit("probe.private_put", secret, transient={"value": b"topsecret"})
        await net.query("probe.private_get", secret)
        for _ in range(2):
            failed = await net.submit("probe.add", {"key": "a", "value": "topsecret"})
            assert failure(failed) == ("refused", "contract_failure")
            assert "topsecret" not in failed.message
            net.peer.failing["WRITE_BATCH_STATE"] = "disk full"
            failed = await net.submit("probe.private_put", secret, transient={"value": b"topsecret"})
            assert failure(failed) == ("rejected", "peer_error") and "topsecret" not in failed.message
            net.peer.failing.clear()
    told = [record.getMessage() + str(record.__dict__) for record in caplog.records]
    assert any("contract function failed" in line for line in told)
    assert not [line for line in told if "topsecret" in line]


async def test_a_peer_that_goes_ends_its_calls_and_another_can_come() -> None:
    async with network(call_timeout_s=20.0) as net:
        net.peer.silent.add("GET_STATE_MULTIPLE")
        call = asyncio.create_task(net.submit(*PUT))
        await running_calls(net, 1)
        await net.peer.__aexit__()
        call.cancel()
        await running_calls(net, 0)
        net.peer.silent.clear()
        async with net.peer:
            assert (await net.submit(*PUT)).status == 200


async def test_draining_lets_calls_end_and_takes_no_new_ones() -> None:
    async with network() as net:
        net.peer.gate.clear()
        running = asyncio.create_task(net.submit(*PUT))
        await running_calls(net, 1)
        stopping = asyncio.create_task(net.server.__aexit__(None, None, None))
        async with asyncio.timeout(60):
            while net.server.healthy:  # noqa: ASYNC110 (it tells nobody)
                await asyncio.sleep(0.01)
        assert failure(await net.submit(*PUT)) == ("rejected", "draining")
        net.peer.gate.set()
        assert (await running).status == 200
        await stopping


async def test_a_call_is_forwarded_with_answer_event_and_refusal() -> None:
    async with network() as net, network(forward_to="flexrelay", name="flexrelay-strict") as entry:
        seen: list[tuple[str, list[bytes]]] = []

        def invoke(name: str, args: Any) -> bytes:
            seen.append((name, list(args)))
            reply = Message(type=Message.COMPLETED)
            if args[1] == b"no":
                reply.payload = wire.Response(status=500, message="the callee's own words").SerializeToString()
            else:
                reply.payload = wire.Response(status=200, payload=b"{}").SerializeToString()
                reply.chaincode_event.event_name, reply.chaincode_event.payload = "events", b"[]"
            data: bytes = reply.SerializeToString()
            return data

        entry.peer.invoke = invoke
        good = await entry.peer.call([b"submit", b"yes"], client=net.client)
        assert (good.status, good.payload, good.event) == (200, b"{}", ("events", b"[]"))
        bad = await entry.peer.call([b"submit", b"no"], client=net.client)
        assert (bad.status, bad.message, bad.event) == (500, "the callee's own words", None)
        assert seen == [("flexrelay", [b"submit", b"yes"]), ("flexrelay", [b"submit", b"no"])]
