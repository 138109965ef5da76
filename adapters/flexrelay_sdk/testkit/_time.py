"""The optional ability `TimeSetter`: a device's clock is read and set."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flexrelay_sdk.port import ClockState, TimeSetter
from flexrelay_sdk.testkit._base import ContractBase, keeps
from flexrelay_sdk.testkit.promise import Promise
from flexrelay_sdk.testkit.rig import Rig
from flexrelay_sdk.testkit.running import running
from flexrelay_sdk.testkit.sink import RecordingSink

_HOUR_MS = 3_600_000


class TimeContract(ContractBase):
    """TIME_SYNC; beside `AdapterContract`, for adapters that set clocks."""

    @keeps(Promise.TIME_SYNC)
    def test_a_wrong_clock_is_told_and_set(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._setting(rig) as adapter:
                for ahead_ms in (2 * _HOUR_MS, -5 * _HOUR_MS, 0):
                    await rig.set_clock(ahead_ms)
                    state, took_ms = await self._sync(adapter, rig.credential)
                    near = rig.clock_step_ms + took_ms
                    assert state.set, "the device took it, and it says that it did not"
                    assert state.offset_ms is not None and abs(state.offset_ms - ahead_ms) <= near, (
                        f"the clock was {ahead_ms} ms ahead, told is {state.offset_ms}"
                    )
                    assert abs(rig.clock_ahead_ms()) <= near, f"the device is {rig.clock_ahead_ms()} ms ahead"

        self._run(tmp_path, scenario)

    @keeps(Promise.TIME_SYNC)
    def test_a_clock_that_cannot_be_set_is_told(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._setting(rig) as adapter:
                await rig.set_clock(_HOUR_MS)
                await rig.behave("refuse")
                state, took_ms = await self._sync(adapter, rig.credential)
                assert not state.set, "the device refused, and it says that its clock is set"
                near = rig.clock_step_ms + took_ms
                assert state.offset_ms is None or abs(state.offset_ms - _HOUR_MS) <= near
                assert abs(rig.clock_ahead_ms() - _HOUR_MS) <= near

        self._run(tmp_path, scenario)

    @keeps(Promise.TIME_SYNC)
    def test_a_clock_out_of_reach_is_an_error(self, tmp_path: Path) -> None:
        """ConnectionError for a device that cannot be reached now, ValueError for one that is none of the adapter's."""

        async def scenario(rig: Rig) -> None:
            async with self._setting(rig) as adapter:
                await rig.set_clock(_HOUR_MS)
                with pytest.raises(ValueError, match=r"."):
                    await self._sync(adapter, "somebody-else")
                if Promise.SLEEP not in self.without:
                    await rig.sleep()
                    with pytest.raises(ConnectionError):
                        await self._sync(adapter, rig.credential)
                    assert rig.clock_ahead_ms() > _HOUR_MS // 2, "set while it slept"
                    await rig.wake()
                    await self._reached(adapter, rig)

        self._run(tmp_path, scenario)

    @asynccontextmanager
    async def _setting(self, rig: Rig) -> AsyncIterator[TimeSetter]:
        adapter = rig.adapter()
        assert isinstance(adapter, TimeSetter), f"{type(adapter).__name__} sets no clock"
        async with running(adapter, RecordingSink(), connect_s=self.patience_s):
            await rig.send(1)  # a device that connects to the adapter is there when this has arrived
            await self._reached(adapter, rig)
            yield adapter

    async def _reached(self, adapter: TimeSetter, rig: Rig) -> None:
        """Wait until the device's clock can be set."""
        async with asyncio.timeout(4 * self.patience_s):
            while True:
                try:
                    await adapter.sync_time(rig.credential)
                    return
                except (ConnectionError, ValueError):
                    await asyncio.sleep(0.05)

    async def _sync(self, adapter: TimeSetter, credential: str) -> tuple[ClockState, int]:
        """(What it tells, how long it took in ms, rounded up)."""
        began = time.monotonic()
        async with asyncio.timeout(4 * self.patience_s):
            state = await adapter.sync_time(credential)
        return state, int((time.monotonic() - began) * 1000) + 1
