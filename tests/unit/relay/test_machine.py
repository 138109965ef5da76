"""Any mixture of faults, restarts, clock steps and held envelopes: one end per intent, and the chain agrees."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from support.contracts import Party
from support.hostile_ledger import PREPARE_FAULTS, SUBMIT_FAULTS, HostileLedger

from flexrelay.outbox import OUTBOX, CommittedIntent, ExpiredIntent, Outbox, OutboxId, RefusedIntent, State
from flexrelay.relay import Pace, Relay, RelayOptions
from flexrelay.store import Store

OPTIONS = RelayOptions(
    in_flight=4, poll_s=0.01, drain_s=0.0, pace=Pace(recheck=0.01, pause=0.001, longest=0.02, void_margin_ms=0)
)
ACTOR, GATEWAY = Party.new(), Party.new("gateway")


async def sign(function: str, args: Any, deadline: int) -> bytes:
    return GATEWAY.intent(function, args, deadline=deadline)


class RelayMachine(RuleBasedStateMachine):
    """The relay runs between the rules, on a loop that the rules turn."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.ledger = HostileLedger()
        self.count = 0
        self.added: dict[str, OutboxId] = {}
        self.relay: Relay | None = None
        self.run(self._begin())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 120))

    async def _begin(self) -> None:
        self.cutting = asyncio.create_task(self.ledger.run(0.001))
        await self._start()

    async def _start(self) -> None:
        self.store = await Store(Path(self.folder.name) / "s.db", [OUTBOX]).__aenter__()
        self.outbox = Outbox(self.store, "org1", clock=lambda: self.ledger.now)
        self.relay = await Relay(self.ledger, self.outbox, sign=sign, options=OPTIONS).__aenter__()

    async def _stop(self) -> None:
        assert self.relay is not None
        await self.relay.__aexit__(None, None, None)
        await self.store.__aexit__(None, None, None)
        self.relay = None

    @rule(
        life_ms=st.sampled_from([500, 60_000]),
        key=st.sampled_from(["", "", "a"]),
        submit=st.lists(st.sampled_from(SUBMIT_FAULTS), max_size=4),
        prepare=st.lists(st.sampled_from(PREPARE_FAULTS), max_size=2),
        wait_s=st.sampled_from([0.0, 0.0, 0.004, 0.015]),
    )
    def add(self, life_ms: int, key: str, submit: list[str], prepare: list[str], wait_s: float) -> None:
        self.ledger.submit_script.extend(submit)
        self.ledger.prepare_script.extend(prepare)
        self.count += 1
        name = f"i{self.count}"
        signed = ACTOR.intent("test.do", {}, deadline=self.ledger.now + life_ms, intent_id=name)
        self.added[name] = self.run(self.outbox.add(signed, ordering_key=key))
        self.run(asyncio.sleep(wait_s))

    @rule()
    def restart(self) -> None:
        self.run(self._stop())
        self.run(self._start())

    @rule(step_ms=st.sampled_from([100, 600, 70_000]))
    def later(self, step_ms: int) -> None:
        self.ledger.now += step_ms
        self.run(asyncio.sleep(0.004))

    @rule()
    def release(self) -> None:
        self.ledger.release()
        self.run(asyncio.sleep(0.004))

    @rule(down=st.booleans())
    def reach(self, down: bool) -> None:
        self.ledger.down = down
        self.ledger.status_script.extend(["unavailable"] * 2)
        self.run(asyncio.sleep(0.004))

    @rule(stalled=st.booleans(), step_ms=st.sampled_from([0, 600, 70_000]))
    def stall(self, stalled: bool, step_ms: int) -> None:
        self.ledger.stalled = stalled
        self.run(asyncio.sleep(0.004))
        self.ledger.now += step_ms

    @rule()
    def answer_late(self) -> None:
        self.ledger.status_script.extend(["cut_after"] * 3)

    @rule()
    def break_stream(self) -> None:
        self.ledger.break_stream = True
        self.run(asyncio.sleep(0.004))

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.ledger.heal()
            self.run(self._check())
        finally:
            self.cutting.cancel()
            if self.relay is not None:
                self.run(self._stop())
            self.loop.close()
            self.folder.cleanup()

    async def _check(self) -> None:
        outcomes = {name: await self.outbox.wait(entry) for name, entry in self.added.items()}
        self.ledger.release()
        await self.ledger.cut()
        assert self.ledger.violations == []
        for name, outcome in outcomes.items():
            valid = self.ledger.valid((ACTOR.did, name))
            match outcome:
                case CommittedIntent(tx_id, _, _):
                    assert valid == [tx_id]
                case RefusedIntent() | ExpiredIntent():
                    assert valid == []
            states = [t.state for t in await self.outbox.transitions(self.added[name])]
            assert [state.terminal for state in states].count(True) == 1 and states[-1].terminal
            assert states[0] is State.PENDING


TestRelayMachine = RelayMachine.TestCase
TestRelayMachine.settings = settings(
    max_examples=40, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.soak
class TestRelayMachineLong(RelayMachine.TestCase):
    """The same with the full counts."""

    settings = settings(
        max_examples=2_000, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
    )
