"""An adapter that runs for the length of a block, and is made to end as the gateway ends it."""

import asyncio
import contextvars
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from flexrelay_sdk.frame import Sink
from flexrelay_sdk.port import Adapter
from flexrelay_sdk.testkit.sink import until

Outcome = TypeVar("Outcome")
STOP_S = 30.0
"""An adapter that was cancelled has ended within this time, whatever it was doing, on a busy machine too."""

_of_adapter: contextvars.ContextVar[bool] = contextvars.ContextVar("of_adapter", default=False)


@asynccontextmanager
async def running(
    adapter: Adapter, sink: Sink, *, connect_s: float = 60.0, connected: bool = True
) -> AsyncIterator[asyncio.Task[None]]:
    """Validate it, run it, wait until it is `connected`, and cancel it at the end. Yields the task of `run`.

    Raises what `run` raised, and AssertionError when the adapter does not connect or does not end in time.
    """
    adapter.validate()
    task = adapter_task(adapter.run(sink), f"run {adapter.name}")
    try:
        if connected:
            await until(lambda: task.done() or adapter.connected, connect_s, f"the connection of {adapter.name}")
            if task.done():
                task.result()
        yield task
    finally:
        await stop(task)


def adapter_task(work: Coroutine[Any, Any, Outcome], name: str) -> asyncio.Task[Outcome]:
    """A task of an adapter, so that `tasks_of_adapters` knows what it makes."""
    context = contextvars.copy_context()
    context.run(_of_adapter.set, True)
    return asyncio.create_task(work, name=name, context=context)


async def stop(task: asyncio.Task[None]) -> None:
    """Cancel it; AssertionError when it does not end by its cancellation within `STOP_S`."""
    if task.done():
        return
    task.cancel()
    done, _ = await asyncio.wait({task}, timeout=STOP_S)
    if not done:
        raise AssertionError(f"{task.get_name()} goes on {STOP_S:g} s after its cancellation")
    if not task.cancelled():
        error = task.exception()
        raise AssertionError(f"{task.get_name()} ended with {error!r}, not with its cancellation") from error


def run_bounded(work: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run` that does not wait for ever for a task that cannot be cancelled: that is a failure, not a hang."""
    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(work)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=STOP_S))
        loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


async def left_behind(made: Iterable[asyncio.Task[Any]]) -> list[str]:
    """Which of these tasks go on; what is ending has `STOP_S` for it."""
    going = [task for task in made if not task.done()]
    if going:
        await asyncio.wait(going, timeout=STOP_S)
    return [f"{task.get_name()}: {task.get_coro()}" for task in going if not task.done()]


@contextmanager
def tasks_of_adapters() -> Iterator[set[asyncio.Task[Any]]]:
    """Collects the tasks that adapters of `running` make in the block, also in their protocols' callbacks."""
    loop = asyncio.get_running_loop()
    made: set[asyncio.Task[Any]] = set()

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, **options)
        context = options.get("context")
        if _of_adapter.get() or (context is not None and context.get(_of_adapter)):
            made.add(task)
        return task

    before = loop.get_task_factory()
    loop.set_task_factory(factory)  # what create_task is called with, `context` too
    try:
        yield made
    finally:
        loop.set_task_factory(before)
