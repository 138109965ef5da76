"""Commands: one life with one end, expiry, and devices that sleep."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path

from flexrelay_sdk.command import Command, CommandState, CommandUpdate
from flexrelay_sdk.port import CommandTarget
from flexrelay_sdk.testkit._base import ContractBase, keeps
from flexrelay_sdk.testkit.promise import Promise
from flexrelay_sdk.testkit.rig import Rig
from flexrelay_sdk.testkit.running import running
from flexrelay_sdk.testkit.sink import RecordingSink


class CommandTests(ContractBase):
    """COMMANDS, SLEEP."""

    @keeps(Promise.COMMANDS)
    def test_a_command_is_obeyed(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                life = await self._execute(target, _command(rig))
                await self._until(lambda: len(rig.acts()) == 1, "the device's act")
            assert life.states == [CommandState.QUEUED, CommandState.SENT, CommandState.ACKED]
            name, parameters = rig.command()
            assert rig.acts()[0][0] == name
            assert rig.acts()[0][1].items() <= parameters.items()

        self._run(tmp_path, scenario)

    @keeps(Promise.COMMANDS)
    def test_a_refusal_is_told(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                await rig.behave("refuse")
                life = await self._execute(target, _command(rig))
            assert life.states == [CommandState.QUEUED, CommandState.SENT, CommandState.FAILED]
            assert rig.acts() == []

        self._run(tmp_path, scenario)

    @keeps(Promise.COMMANDS)
    def test_a_command_without_answer_expires_at_its_time(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                await rig.behave("silent")
                for lasts_s in (1.5, 8.0, 40.0):
                    began = time.monotonic()
                    life = await self._execute(target, _command(rig, f"for {lasts_s} s", int(lasts_s * 1000)))
                    assert lasts_s - 0.3 <= time.monotonic() - began <= lasts_s + self.patience_s / 3
                    if CommandState.SENT in life.states:
                        break  # else the machine stood still: it was too late to send it
            assert life.states == [CommandState.QUEUED, CommandState.SENT, CommandState.EXPIRED]

        self._run(tmp_path, scenario)

    @keeps(Promise.COMMANDS)
    def test_an_expired_command_never_reaches_the_device(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                life = await self._execute(target, _command(rig, lasts_ms=-1))
                await asyncio.sleep(self.settle_s)
                assert life.states == [CommandState.QUEUED, CommandState.EXPIRED] and rig.acts() == []
                life = await self._execute(target, _command(rig, "second"))
                assert life.states[-1] is CommandState.ACKED
            assert len(rig.acts()) == 1

        self._run(tmp_path, scenario)

    @keeps(Promise.COMMANDS)
    def test_a_command_is_handed_over_again_after_a_restart(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            command = _command(rig)
            async with self._commanding(rig) as target:
                await rig.behave("silent")
                await self._cut_off(target, command, asyncio.sleep(self.settle_s))
            await rig.behave("obey")
            await self._done_once(rig, command)

        self._run(tmp_path, scenario)

    @keeps(Promise.COMMANDS)
    def test_a_command_that_went_out_before_a_restart_is_done_once(self, tmp_path: Path) -> None:
        """The device may have got it, done it and answered, while nobody listened."""

        async def scenario(rig: Rig) -> None:
            command = _command(rig)
            async with self._commanding(rig) as target:
                life = Life(CommandState.SENT)
                await self._cut_off(target, command, life.reached.wait(), life)
            await self._done_once(rig, command)

        self._run(tmp_path, scenario)

    @keeps(Promise.SLEEP)
    def test_a_restart_while_the_device_sleeps_loses_and_repeats_nothing(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            command = _command(rig)
            async with self._commanding(rig) as target:
                await rig.sleep()
                await self._cut_off(target, command, asyncio.sleep(self.settle_s))
            async with self._commanding(rig) as target:
                executing = asyncio.create_task(target.execute(command, life := Life()))
                await asyncio.sleep(self.settle_s)
                assert not executing.done() and rig.acts() == []
                await rig.wake()
                async with asyncio.timeout(2 * self.patience_s):
                    await executing
                life.check()
                assert life.states[-1] is CommandState.ACKED, "lost"
                await asyncio.sleep(self.settle_s)
            assert len(rig.acts()) == 1, "the device did it twice"

        self._run(tmp_path, scenario)

    @keeps(Promise.SLEEP)
    def test_a_sleeping_device_gets_its_command_on_waking(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                await rig.sleep()
                life = Life()
                executing = asyncio.create_task(target.execute(_command(rig), life))
                await asyncio.sleep(self.settle_s)
                assert not executing.done() and rig.acts() == []
                await rig.wake()
                async with asyncio.timeout(2 * self.patience_s):
                    await executing
                life.check()
                assert life.states[-1] is CommandState.ACKED and len(rig.acts()) == 1

        self._run(tmp_path, scenario)

    @keeps(Promise.SLEEP)
    def test_a_sleeping_device_gets_no_expired_command(self, tmp_path: Path) -> None:
        async def scenario(rig: Rig) -> None:
            async with self._commanding(rig) as target:
                await rig.sleep()
                life = await self._execute(target, _command(rig, lasts_ms=1200))
                assert life.states[-1] is CommandState.EXPIRED
                await asyncio.sleep(1.0)  # protocols count whole seconds
                await rig.wake()
                await asyncio.sleep(2 * self.settle_s)
                assert rig.acts() == [], "it acted on an expired command"

        self._run(tmp_path, scenario)

    @asynccontextmanager
    async def _commanding(self, rig: Rig) -> AsyncIterator[CommandTarget]:
        adapter = rig.adapter()
        assert isinstance(adapter, CommandTarget) and adapter.can_command, "not configured to command"
        async with running(adapter, RecordingSink(), connect_s=self.patience_s):
            yield adapter

    async def _cut_off(
        self, target: CommandTarget, command: Command, moment: Awaitable[object], life: "Life | None" = None
    ) -> None:
        """The gateway ends at that moment of the command."""
        executing = asyncio.create_task(target.execute(command, Life() if life is None else life))
        async with asyncio.timeout(2 * self.patience_s):
            await moment
        executing.cancel()
        await asyncio.gather(executing, return_exceptions=True)

    async def _done_once(self, rig: Rig, command: Command) -> None:
        """After a restart the command is handed over again."""
        async with self._commanding(rig) as target:
            life = await self._execute(target, command)
            assert life.states[-1] is CommandState.ACKED, "lost"
            await asyncio.sleep(self.settle_s)
        assert len(rig.acts()) == 1, "the device did it twice"

    async def _execute(self, target: CommandTarget, command: Command) -> "Life":
        life = Life()
        async with asyncio.timeout(2 * self.patience_s):
            await target.execute(command, life)
        life.check()
        return life


class Life:
    """Notes a command's states; `check` demands what every life keeps to. `reached` is set with the state `until`."""

    def __init__(self, until: CommandState | None = None) -> None:
        self.updates: list[CommandUpdate] = []
        self.reached = asyncio.Event()
        self._until = until

    async def __call__(self, update: CommandUpdate) -> None:
        self.updates.append(update)
        if update.state is self._until:
            self.reached.set()

    @property
    def states(self) -> list[CommandState]:
        """Each state once: a transport may hand over the same command several times."""
        return list(dict.fromkeys(update.state for update in self.updates))

    def check(self) -> None:
        ends = [update.state.value for update in self.updates if update.state.terminal]
        assert len(ends) == 1, f"a command ends once, this one: {ends}"
        assert self.updates[-1].state.terminal, "a state after the end"
        assert CommandState.CONFIRMED not in self.states, "confirmed is the gateway's word, not the adapter's"
        assert self.updates[0].state is CommandState.QUEUED


def _command(rig: Rig, command_id: str = "first", lasts_ms: int = 120_000) -> Command:
    name, parameters = rig.command()
    expires_at = time.time_ns() // 1_000_000 + lasts_ms
    return Command(command_id, "did:example:device", rig.credential, name, parameters, expires_at, "order-1")
