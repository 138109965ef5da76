"""Two objects of one device that tell a value at once, without a time, are two readings at two instants."""

from __future__ import annotations

import pytest

from flexrelay_adapters.lwm2m import Lwm2mAdapter, Lwm2mConfig
from flexrelay_adapters.lwm2m.device import DeviceClient, Tree
from flexrelay_adapters.lwm2m.formats import Record
from flexrelay_sdk.testkit import RecordingSink, running, until

pytestmark = pytest.mark.timeout(600)
NOW = 1_700_000_000.25


async def test_what_comes_within_a_millisecond(tmp_path: object) -> None:
    config = Lwm2mConfig.from_section("field", {"coap": {"port": 0}, "state": f"{tmp_path}/state.db"})
    sink, adapter = RecordingSink(), Lwm2mAdapter(config, clock=lambda: NOW)
    async with running(adapter, sink):
        tree = Tree({(3421, 0, 23): 1.0, (3421, 0, 25): 7.0, (3411, 0, 1): 50})
        device = DeviceClient(("127.0.0.1", adapter.coap_port), "battery", tree, local="127.0.0.77")
        try:
            await device.open()
            await device.register()
            await until(lambda: len(sink.frames) >= 2, 60, "the first values of both objects")
            device.change({(3421, 0, 23): 2.0, (3411, 0, 1): 60})
            await until(lambda: len(sink.frames) >= 4, 60, "a notification of each")
            await device.send([Record((3421, 0, 23), 3.0, None)])
        finally:
            device.close()
    instants = [measurement.observed_at for measurement in sink.measurements]
    assert instants == list(range(1_700_000_000_250, 1_700_000_000_250 + len(instants))) and len(instants) == 5
