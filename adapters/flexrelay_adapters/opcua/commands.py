"""Commands as OPC UA writes and method calls.

A Good answer is `acked`, a Bad one `failed`; without an answer (the connection broke) the command is given once more
after the reconnect, until it expires.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Protocol

from flexrelay_adapters._commands import Newest, begun
from flexrelay_adapters.opcua._stack import Connection, variant
from flexrelay_adapters.opcua.config import Argument, CommandRoute
from flexrelay_adapters.opcua.refusals import NO_ANSWER, ConnectionLost
from flexrelay_sdk import Command, CommandState, CommandUpdate
from flexrelay_sdk.mapping import UNITS

OnUpdate = Callable[[CommandUpdate], Awaitable[None]]
RETRY_S: Final = 0.2
_RANGES: Final = {
    "Int16": (-(1 << 15), (1 << 15) - 1),
    "Int32": (-(1 << 31), (1 << 31) - 1),
    "Int64": (-(1 << 63), (1 << 63) - 1),
    "UInt16": (0, (1 << 16) - 1),
    "UInt32": (0, (1 << 32) - 1),
    "UInt64": (0, (1 << 64) - 1),
}


class Online(Protocol):
    """Who has a connection, or waits for one."""

    async def online(self) -> Connection: ...


class Impossible(ValueError):
    """The command cannot be put into this route's arguments."""


def argument_of(argument: Argument, command: Command) -> tuple[str, Any]:
    """(built-in type, value) of one argument. Raises Impossible."""
    name = argument.parameter
    if name == "command_id":
        return "String", command.command_id
    if name == "expires_at":
        return "DateTime", datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=command.expires_at)
    if name not in command.parameters:
        raise Impossible(f"the command has no parameter {name}; it has {', '.join(sorted(command.parameters))}")
    value = Decimal(command.parameters[name])
    if argument.unit is not None:
        value /= UNITS[name.rsplit("_", 1)[-1]][argument.unit]
    value = value.scaleb(-argument.scale)
    value = -value if argument.negate else value
    if argument.type in ("Double", "Float"):
        return argument.type, float(value)
    if argument.type == "Boolean":
        return argument.type, bool(value)
    whole = int(value.to_integral_value())
    low, high = _RANGES[argument.type]
    if not low <= whole <= high:
        raise Impossible(f"{name} is {whole} there, which is no {argument.type}")
    return argument.type, whole


async def carry_out(
    command: Command,
    route: CommandRoute,
    target: Online,
    newest: Newest,
    on_update: OnUpdate,
    clock: Callable[[], int],
) -> None:
    """Give the command to the server and tell its states; returns when it is terminal. One that is told no times is not
    given again after a newer one."""

    async def tell(state: CommandState, detail: str = "") -> None:
        await on_update(CommandUpdate(command.command_id, state, clock(), detail))

    await tell(CommandState.QUEUED)
    try:
        arguments = [variant(*argument_of(argument, command)) for argument in route.arguments]
    except Impossible as error:
        await tell(CommandState.FAILED, str(error))
        return
    tells_window = any(argument.parameter == "from_ms" for argument in route.arguments)
    if not tells_window:
        await begun(command, clock)
    detail, given = "no connection to the server in time", False
    while (left_ms := command.expires_at - clock()) > 0:
        try:
            async with asyncio.timeout(left_ms / 1000):
                connection = await target.online()
        except TimeoutError:
            break
        if clock() >= command.expires_at:
            break
        if given and not tells_window and not newest.holds(command):
            await tell(CommandState.FAILED, "a newer command holds the device")
            return
        await tell(CommandState.SENT)
        if not given:
            newest.begin(command)
            given = True
        try:
            async with asyncio.timeout(max(0.0, command.expires_at - clock()) / 1000):
                refusal = await _give(connection, route, arguments)
        except ConnectionLost as error:
            if not error.name or error.name in NO_ANSWER:
                detail = f"no answer: {error}"
                await asyncio.sleep(RETRY_S)
                continue
            refusal = error.name  # the whole request was refused
        except TimeoutError:
            detail = "the server did not answer in time"
            break
        except ValueError as error:
            refusal = str(error) or repr(error)
        if refusal:
            newest.over(command)
        await tell(CommandState.FAILED if refusal else CommandState.ACKED, refusal)
        return
    await tell(CommandState.EXPIRED, detail)


async def _give(connection: Connection, route: CommandRoute, arguments: Sequence[Any]) -> str:
    """ "" or why the server refuses. Raises ValueError for a node whose namespace is not there."""
    if route.write is not None:
        return await connection.write(connection.resolve(route.write), arguments[0])
    assert route.object is not None and route.method is not None
    refusal, _ = await connection.call(connection.resolve(route.object), connection.resolve(route.method), arguments)
    return refusal
