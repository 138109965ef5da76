"""The intake's room for bodies."""

import asyncio

import pytest
from support.sinks import MemorySink

from flexrelay.ingest import NativeCodec
from flexrelay_adapters._http import Busy, Intake, Listen
from flexrelay_sdk import Frame


async def test_a_body_that_was_given_up_gets_no_room_any_more() -> None:
    """Its next piece may be there before its end is told; all room may be taken by what waits."""
    intake = Intake(Listen(port=0, max_pending_bytes=2**16))
    running = asyncio.create_task(intake.run(MemorySink()))
    await asyncio.sleep(0)
    with intake.room("slow") as slow:
        intake.grow(slow, 40_000)
        with intake.room("quick") as quick:
            intake.grow(quick, 30_000)
        assert slow.given_up
        waiting = asyncio.create_task(intake.put([Frame("http", "quick", b"x" * 2**16, 0, "/readings")], NativeCodec()))
        await asyncio.sleep(0)  # its bytes wait from now on
        with pytest.raises(Busy):
            intake.grow(slow, 1_000)
    await waiting
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_body_whose_time_is_over_just_now_gives_way_too() -> None:
    """Its timeout has fired, and its request does not know yet."""
    intake = Intake(Listen(port=0, max_pending_bytes=2**16))
    running = asyncio.create_task(intake.run(MemorySink()))
    await asyncio.sleep(0)
    loop, rooms, taken = asyncio.get_running_loop(), [], []

    async def slow() -> None:
        with intake.room("slow") as room:
            intake.grow(room, 40_000)
            async with asyncio.timeout(60) as room.patience:
                rooms.append(room)
                await asyncio.sleep(60)

    def quick() -> None:
        with intake.room("quick") as room:
            intake.grow(room, 30_000)
            taken.append(room.size)

    task = asyncio.create_task(slow())
    await asyncio.sleep(0)
    rooms[0].patience.reschedule(loop.time())
    loop.call_soon(quick)  # in the same turn of the loop as the timeout, after it
    with pytest.raises(TimeoutError):
        await task
    assert taken == [30_000] and rooms[0].given_up
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
