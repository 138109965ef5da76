"""The optional ability `Discoverer`: who is there, told without disturbing anybody."""

import asyncio
import time
from pathlib import Path
from typing import Any

from flexrelay_sdk.port import Adapter, Discoverer
from flexrelay_sdk.testkit._base import ContractBase, keeps
from flexrelay_sdk.testkit.promise import Promise
from flexrelay_sdk.testkit.rig import Rig
from flexrelay_sdk.testkit.running import adapter_task, left_behind, running, tasks_of_adapters
from flexrelay_sdk.testkit.sink import RecordingSink

_MAX_CREDENTIAL = 512
"""A gateway passes over longer ones."""


class DiscoveryContract(ContractBase):
    """DISCOVERY; beside `AdapterContract`, for adapters that can discover."""

    @keeps(Promise.DISCOVERY)
    def test_a_device_that_nobody_knows_is_discovered(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            adapter = rig.adapter()
            async with running(adapter, RecordingSink(), connect_s=self.patience_s):
                stranger = await rig.appear()
                found = await self._discovered(adapter, stranger)
                assert len(found) == len(set(found)), f"told twice: {sorted(found)}"
                wrong = [each for each in found if not 0 < len(each) <= _MAX_CREDENTIAL or not each.isprintable()]
                assert wrong == [], f"these can be no credentials: {wrong}"
                channels = adapter.channels_for(stranger)
                assert all(isinstance(channel, str) and channel for channel in channels)

        self._run(tmp_path, scenario)

    @keeps(Promise.DISCOVERY)
    def test_discovery_disturbs_no_readings(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            adapter, sink = rig.adapter(), RecordingSink()
            async with running(adapter, sink, connect_s=self.patience_s) as task:
                stranger = await rig.appear()
                async with self._meanwhile(self._again_and_again(adapter)):
                    await self._send(rig, range(20))
                    await self._arrival(sink, range(20))
                    assert stranger in await self._discovered(adapter, stranger), "told once and never again"
                assert adapter.connected and not task.done()
            assert {frame.credential for frame in sink.frames if frame.credential != stranger} == {rig.credential}
            if self.ordered:
                mine = [m for s in sink.stored if s.frame.credential != stranger for m in s.measurements]
                told = [m.registers["power_w"] for m in mine if "power_w" in m.registers]
                assert [number for number in told if number in range(20)] == list(range(20))
            assert sink.dead == [] and sink.faults == []

        self._run(tmp_path, scenario)

    @keeps(Promise.DISCOVERY)
    def test_discovery_that_is_broken_off_leaves_nothing_behind(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            adapter, sink = rig.adapter(), RecordingSink()
            async with running(adapter, sink, connect_s=self.patience_s) as task:
                stranger = await rig.appear()
                await self._discovered(adapter, stranger)
                with tasks_of_adapters() as made:
                    for _ in range(5):
                        asking = adapter_task(_whole(adapter), "asks for what is there")
                        await asyncio.sleep(0)
                        asking.cancel()
                        await asyncio.wait({asking}, timeout=self.patience_s)
                        assert asking.done(), "goes on after its cancellation"
                await self._send(rig, range(5))
                await self._arrival(sink, range(5))
                assert adapter.connected and not task.done()
            left = await left_behind(made)
            assert left == [], f"tasks that the discovery left behind: {left}"

        self._run(tmp_path, scenario)

    @keeps(Promise.DISCOVERY)
    def test_discovery_ends_where_nothing_answers(self, tmp_path: Path) -> None:
        """By finding nothing, or with a ConnectionError."""

        async def scenario(rig: Rig) -> None:
            adapter = rig.adapter()
            if self.is_server:
                assert await self._bounded(adapter) in ([], None)  # it does not run: nobody can have come
                return
            async with rig.outage():
                assert await self._bounded(adapter) in ([], None)

        self._run(tmp_path, scenario)

    async def _again_and_again(self, adapter: Adapter) -> None:
        while True:
            await self._bounded(adapter)
            assert adapter.connected, "asking cost it its connection"
            await asyncio.sleep(0.01)

    async def _bounded(self, adapter: Adapter) -> list[str] | None:
        """What it tells; None when it says that it cannot ask."""
        try:
            async with asyncio.timeout(4 * self.patience_s):
                return await _whole(adapter)
        except TimeoutError:
            raise AssertionError(f"the discovery does not end within {4 * self.patience_s:g} s") from None
        except ConnectionError:
            return None
        except Exception as error:
            raise AssertionError(f"the discovery raises {error!r}; only a ConnectionError is expected") from error

    async def _discovered(self, adapter: Adapter, credential: str) -> list[str]:
        """What it tells once the credential is there."""
        began = time.monotonic()
        while True:
            found = await self._bounded(adapter)
            if found is not None and credential in found:
                return found
            told = sorted(found or ())[:20]
            assert time.monotonic() - began < 4 * self.patience_s, f"{credential!r} is not discovered; told is {told}"
            await asyncio.sleep(0.05)


async def _whole(adapter: Any) -> list[str]:
    assert isinstance(adapter, Discoverer), f"{type(adapter).__name__} discovers nothing"
    return [credential async for credential in adapter.discover()]
