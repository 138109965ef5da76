"""What the contract's tests are made of: the rig, bounded waits, promises."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from flexrelay_sdk.testkit.promise import Promise
from flexrelay_sdk.testkit.rig import Rig
from flexrelay_sdk.testkit.running import run_bounded
from flexrelay_sdk.testkit.sink import RecordingSink, until

Test = TypeVar("Test", bound=Callable[..., None])
_PROMISE = "flexrelay_promise"


def keeps(promise: Promise) -> Callable[[Test], Test]:
    """Marks a test of a contract with the promise that it tests."""

    def mark(test: Test) -> Test:
        setattr(test, _PROMISE, promise)
        return test

    return mark


class ContractBase:
    """See `AdapterContract`. `patience_s` bounds every wait; `settle_s` is how long nothing must happen for it to count
    as not happening."""

    without: ClassVar[Mapping[Promise, str]] = {}
    """Promises that the protocol cannot make, each with the reason."""
    is_server: ClassVar[bool] = False
    """Whether devices connect to the adapter (else the adapter connects to a server)."""
    ordered: ClassVar[bool] = True
    """Whether the protocol keeps the order of one device's readings."""
    patience_s: ClassVar[float] = 60.0
    settle_s: ClassVar[float] = 0.4

    def rig(self, tmp_path: Path) -> AbstractAsyncContextManager[Rig]:
        raise NotImplementedError(f"{type(self).__name__}.rig(tmp_path) must give the adapter's counterpart")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for promise, reason in cls.without.items():
            if not reason.strip():
                raise TypeError(f"{cls.__name__}.without[{promise}] needs a reason")
        for name in dir(cls):
            if getattr(getattr(cls, name), _PROMISE, None) in cls.without:
                setattr(cls, name, None)  # pytest collects what can be called

    @classmethod
    def kept(cls) -> frozenset[Promise]:
        """The promises that have a test here."""
        tests = [getattr(cls, name) for name in dir(cls) if name.startswith("test_")]
        return frozenset(getattr(test, _PROMISE) for test in tests if hasattr(test, _PROMISE))

    def _run(self, tmp_path: Path, scenario: Callable[[Rig], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with self.rig(tmp_path) as rig:
                await scenario(rig)

        run_bounded(whole())

    async def _grown(self, flood: "asyncio.Task[int]", bound: int) -> int:
        """The greatest growth until the flood is through, memory stands still, or the bound is broken."""
        still_s, before, began = 0.0, 0, time.monotonic()
        while still_s < 2 * self.settle_s and time.monotonic() - began < 2 * self.patience_s:
            await asyncio.wait({flood}, timeout=0.1)
            now, greatest = tracemalloc.get_traced_memory()
            if flood.done() or greatest > bound:
                break
            still_s = still_s + 0.1 if abs(now - before) < 65_536 else 0.0
            before = now
        return tracemalloc.get_traced_memory()[1]

    @asynccontextmanager
    async def _meanwhile(self, asking: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """What asks for ever runs beside the block; where it has ended before the block, that failed."""
        task = asyncio.create_task(asking, name="asks again and again")
        try:
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _send(self, rig: Rig, numbers: Iterable[int]) -> None:
        for number in numbers:
            await rig.send(number)

    async def _until(self, condition: Callable[[], bool], what: str, timeout_s: float = 0.0) -> None:
        await until(condition, timeout_s or self.patience_s, what)

    async def _arrival(self, sink: RecordingSink, numbers: Iterable[int], timeout_s: float = 0.0) -> None:
        wanted = set(numbers)
        try:
            await self._until(lambda: wanted <= set(sink.values()), "the readings", timeout_s)
        except AssertionError as error:
            missing = sorted(wanted - set(sink.values()))
            raise AssertionError(f"{error}; missing {len(missing)} of {len(wanted)}: {missing[:10]}") from None
