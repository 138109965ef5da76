"""Starting, stopping, and the server on the other side: gone, back, or turning the adapter away."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from flexrelay_sdk.testkit._base import ContractBase, keeps
from flexrelay_sdk.testkit.promise import Promise
from flexrelay_sdk.testkit.rig import Rig
from flexrelay_sdk.testkit.running import left_behind, running, tasks_of_adapters
from flexrelay_sdk.testkit.sink import RecordingSink


class LifecycleTests(ContractBase):
    """LIFECYCLE, RECONNECT, CREDENTIALS."""

    @keeps(Promise.LIFECYCLE)
    def test_starts_and_stops_and_starts_again(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            adapter = rig.adapter()
            assert not adapter.connected and adapter.name and adapter.protocol
            assert not rig.secret or rig.secret not in adapter.endpoint
            for _ in range(2):
                sink = RecordingSink()
                async with running(adapter, sink, connect_s=self.patience_s):
                    assert adapter.connected
                assert not adapter.connected, "connected after its end"
                assert sink.faults == []

        self._run(tmp_path, scenario)

    @keeps(Promise.LIFECYCLE)
    def test_leaves_nothing_running(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            with tasks_of_adapters() as made:
                async with running(rig.adapter(), RecordingSink(), connect_s=self.patience_s):
                    pass
                assert made
            left = await left_behind(made)
            assert left == [], f"tasks that the adapter left behind: {left}"

        self._run(tmp_path, scenario)

    @keeps(Promise.LIFECYCLE)
    def test_stops_while_the_sink_is_busy(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            sink = RecordingSink()
            sink.hold()
            async with running(rig.adapter(), sink, connect_s=self.patience_s):
                await self._send(rig, range(5))
                await self._until(lambda: sink.waiting > 0, "a frame in the sink")
            assert sink.stored == []

        self._run(tmp_path, scenario)

    @keeps(Promise.RECONNECT)
    def test_stops_while_there_is_no_server(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with rig.outage():
                adapter = rig.adapter()
                async with running(adapter, RecordingSink(), connected=False) as task:
                    await asyncio.sleep(self.settle_s)
                    assert not adapter.connected
                    assert not task.done(), "gave up instead of trying again"

        self._run(tmp_path, scenario)

    @keeps(Promise.RECONNECT)
    def test_a_lost_server_is_found_again_and_nothing_is_lost(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            adapter, sink = rig.adapter(), RecordingSink()
            async with running(adapter, sink, connect_s=self.patience_s) as task:
                await self._send(rig, range(10))
                async with rig.outage():
                    await self._until(lambda: not adapter.connected, "the loss of the server")
                await self._until(lambda: task.done() or adapter.connected, "the connection after the outage")
                assert not task.done()
                await self._send(rig, range(10, 20))
                await self._arrival(sink, range(20))
            assert sink.faults == []

        self._run(tmp_path, scenario)

    @keeps(Promise.CREDENTIALS)
    def test_wrong_credentials_are_named_without_the_secret(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig, records: list[logging.LogRecord]) -> None:
            sink = RecordingSink()
            if self.is_server:
                adapter = rig.adapter()
                async with running(adapter, sink, connect_s=self.patience_s):
                    await rig.intrude(adapter)
                    await self._until(lambda: bool(_complaints(records)), "a warning about the credentials")
                    await rig.send(1)
                    await self._arrival(sink, [1])
                assert set(sink.values()) == {1}
            else:
                adapter = rig.adapter_with_wrong_credentials()
                async with running(adapter, sink, connected=False):
                    await self._until(lambda: bool(_complaints(records)), "a warning about the credentials")
                    assert not adapter.connected
                assert sink.entered == 0
                assert any(adapter.name in text for text in _complaints(records)), "the warning names no adapter"
            told = " ".join(record.getMessage() for record in records)
            assert not rig.secret or rig.secret not in told, "the secret stands in the log"

        with _logged() as records:
            self._run(tmp_path, lambda rig: scenario(rig, records))


def _complaints(records: Iterable[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records if record.levelno >= logging.WARNING]


class _logged:  # noqa: N801  # reads as a verb
    """Every record of the block, whatever the levels are."""

    def __enter__(self) -> list[logging.LogRecord]:
        self._records: list[logging.LogRecord] = []
        self._handler = logging.Handler(logging.DEBUG)
        self._handler.emit = self._records.append  # type: ignore[method-assign, assignment]  # it only keeps
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self._handler)
        return self._records

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self._handler)
        root.setLevel(self._level)
