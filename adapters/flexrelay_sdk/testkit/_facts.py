"""The optional ability `FactTeller`: what devices say of themselves is told, made safe, and disturbs nobody."""

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from flexrelay_sdk.facts import MAX_FACT, NO_FACTS, DeviceFacts, FactTeller, cleaned
from flexrelay_sdk.port import Adapter
from flexrelay_sdk.testkit._base import ContractBase, keeps
from flexrelay_sdk.testkit.promise import Promise
from flexrelay_sdk.testkit.rig import Rig
from flexrelay_sdk.testkit.running import running
from flexrelay_sdk.testkit.sink import RecordingSink

_SAID: Final = DeviceFacts("Acme Ltd", "Roof 10", "SN-1", "4.1.0", 640)
_UNFIT: Final = DeviceFacts(
    "  Acme\tLtd\r\n", "Roof \x1b[31m10", "SN-1\x00", "4.1.0 " + "x" * (2 * MAX_FACT), battery_permille=70_000
)
"""What a device may write there: a terminal's control characters, blanks, too much, more than full."""
_INSTANT_S: Final = 2.0
"""What asking for facts may take on a busy machine: nothing is waited for."""


class FactContract(ContractBase):
    """FACTS; beside `AdapterContract`, for adapters whose devices say what they are."""

    @keeps(Promise.FACTS)
    def test_what_a_device_says_of_itself_is_told_and_disturbs_no_reading(self, tmp_path: Path) -> None:
        """Also when `run` has ended, and by an adapter that has not run yet: nothing, and no error."""

        async def scenario(rig: Rig) -> None:
            said = await rig.introduce(_SAID)
            assert said != NO_FACTS, f"{rig!r} lets its device say nothing"
            adapter, sink = rig.adapter(), RecordingSink()
            assert self._facts(adapter).get(rig.credential, NO_FACTS) == NO_FACTS, "invented"
            async with running(adapter, sink, connect_s=self.patience_s) as task:
                async with self._meanwhile(self._again_and_again(adapter)):
                    await self._send(rig, range(20))
                    await self._arrival(sink, range(20))
                    await self._told(adapter, rig, said)
                assert adapter.connected and not task.done()
            assert self._facts(adapter).get(rig.credential) == said, "forgotten when it stopped"
            assert {frame.credential for frame in sink.frames} == {rig.credential}, "facts are no readings"
            assert sink.dead == [] and sink.faults == []
            if self.ordered:
                assert [number for number in sink.values() if number in range(20)] == list(range(20))

        self._run(tmp_path, scenario)

    @keeps(Promise.FACTS)
    def test_what_is_not_fit_to_be_shown_is_made_so(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            said = await rig.introduce(_UNFIT)
            assert said == cleaned(said), "what the rig expects is not fit to be shown either"
            adapter, sink = rig.adapter(), RecordingSink()
            async with running(adapter, sink, connect_s=self.patience_s) as task:
                await self._send(rig, range(5))
                await self._arrival(sink, range(5))
                await self._told(adapter, rig, said)
                assert adapter.connected and not task.done()

        self._run(tmp_path, scenario)

    async def _told(self, adapter: Adapter, rig: Rig, said: DeviceFacts) -> None:
        began = time.monotonic()
        while (told := self._facts(adapter).get(rig.credential, NO_FACTS)) != said:
            waited = time.monotonic() - began
            assert waited < 4 * self.patience_s, f"{rig.credential!r} says {said}, told is {told}"
            await asyncio.sleep(0.02)

    async def _again_and_again(self, adapter: Adapter) -> None:
        while True:
            self._facts(adapter)
            await asyncio.sleep(0.005)

    def _facts(self, adapter: Any) -> dict[str, DeviceFacts]:
        """What it tells now; what can be seen at once is checked."""
        assert isinstance(adapter, FactTeller), f"{type(adapter).__name__} tells no facts"
        pairs, took = _asked(adapter)
        if took >= _INSTANT_S:  # the machine may have stood still
            pairs, took = _asked(adapter)
        assert took < _INSTANT_S, f"it took {took:.1f} s: what must be asked for is asked before"
        told = dict(pairs)
        assert len(told) == len(pairs), f"told twice: {sorted(credential for credential, _ in pairs)}"
        unfit = [facts for facts in told.values() if facts != cleaned(facts)]
        assert unfit == [], f"not fit to be shown: {unfit}"
        return told


def _asked(adapter: FactTeller) -> tuple[list[tuple[str, DeviceFacts]], float]:
    """(What it tells, how long that took in seconds)."""
    began = time.monotonic()
    pairs = list(adapter.facts())
    return pairs, time.monotonic() - began
