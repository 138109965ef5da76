"""The adapter ends when it is cancelled, whatever comes at the same moment."""

import asyncio

import pytest
from support.sinks import MemorySink

from flexrelay.ingest import NativeCodec
from flexrelay_adapters.mqtt import MqttAdapter, MqttConfig
from flexrelay_adapters.mqtt._client import Connection, ConnectionLost, Session
from flexrelay_adapters.mqtt.config import BrokerConfig


async def test_a_cancellation_that_a_refused_connection_swallows_still_ends_it() -> None:
    """`asyncio.wait_for` of Python 3.11 returns the inner failure instead when both come in one turn of the loop."""
    connecting = asyncio.Event()

    async def refused(config: BrokerConfig, session: Session) -> Connection:
        connecting.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ConnectionLost("refused just now") from None
        raise AssertionError("nobody cancelled")

    config = MqttConfig(name="field", port=1883, client_id="gateway", readings=("v1/{device}/readings",))
    adapter = MqttAdapter(config, NativeCodec(), connect=refused)
    task = asyncio.create_task(adapter.run(MemorySink()))
    await connecting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)
