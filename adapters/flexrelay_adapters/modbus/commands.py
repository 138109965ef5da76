"""A command's life on Modbus: wait for its window, write, read back.

The window [from_ms, until_ms) is in market time and `expires_at` is its end on the wall's clock, so it begins at
`expires_at` − (until_ms − from_ms). Registers that tell what was written are *acked*; an exception, or registers that
tell something else after `confirm_s`, *failed*. After a lost answer it is looked first whether the registers tell it
already; only else it is written again.

What no timer in the device ends is ended by `end`, which the gateway calls after `expires_at`: it has kept on disk that
the command was sent, so a kill in between changes nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from flexrelay_adapters._commands import begun
from flexrelay_adapters.modbus._client import Link
from flexrelay_adapters.modbus.config import ModbusConfig
from flexrelay_adapters.modbus.endpoint import Endpoint
from flexrelay_adapters.modbus.orders import (
    Impossible,
    Order,
    Read,
    Write,
    plain_order,
    plain_reverts,
    sunspec_order,
    sunspec_reverts,
)
from flexrelay_adapters.modbus.refusals import DEVICE_FAILURE, ConnectionLost, Refused
from flexrelay_adapters.modbus.session import Session, WrongSerial
from flexrelay_adapters.modbus.values import Span
from flexrelay_sdk import Command, CommandState, CommandUpdate
from flexrelay_sdk.vocabulary import check

log = logging.getLogger(__name__)

OnUpdate = Callable[[CommandUpdate], Awaitable[None]]
_RETRY_S: Final = 0.2


class _Failed(Exception):
    """The device does not do it."""


async def carry_out(
    command: Command, endpoint: Endpoint, config: ModbusConfig, on_update: OnUpdate, clock: Callable[[], int]
) -> None:
    """Tell the command's states; returns when it is terminal."""

    async def tell(state: CommandState, detail: str = "") -> None:
        await on_update(CommandUpdate(command.command_id, state, clock(), detail))

    await tell(CommandState.QUEUED)
    refusal = check(command.name, command.parameters)
    if refusal:
        await tell(CommandState.FAILED, refusal)
        return
    sent = False
    detail = "the device could not be reached in time"

    async def before_sending() -> None:
        nonlocal sent
        if not sent:
            sent = True
            await tell(CommandState.SENT)

    try:
        async with asyncio.timeout(max(0.0, (command.expires_at - clock()) / 1000)):
            await begun(command, clock)
            while clock() < command.expires_at:
                link, session = await endpoint.online(command.credential)
                try:
                    async with session.turn:
                        await _try(command, link, session, config, before_sending, sent, clock)
                except ConnectionLost as error:
                    detail = f"no answer: {error}"
                except Refused as error:
                    if not error.transient:
                        raise _Failed(f"the device refuses it: {error}") from None
                    detail = f"the device puts it off: {error}"
                else:
                    await tell(CommandState.ACKED, "the registers tell it")
                    return
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        pass
    except _Failed as error:
        await before_sending()
        await tell(CommandState.FAILED, str(error))
        return
    except (Impossible, WrongSerial) as error:  # never written: it keeps no older one from its end, not for an instant
        await tell(CommandState.FAILED, str(error))
        return
    await tell(CommandState.EXPIRED, detail)


async def _try(
    command: Command,
    link: Link,
    session: Session,
    config: ModbusConfig,
    before_sending: Callable[[], Awaitable[None]],
    again: bool,
    clock: Callable[[], int],
) -> None:
    unit = session.device.unit
    order = await _order(command, link, session, clock())
    if again and session.holding.get(command.name, command.command_id) != command.command_id:
        raise _Failed("a newer command holds the device")
    if again and await _told(link, unit, order.writes):
        session.holding[command.name] = command.command_id
        return
    for write in order.writes:
        if clock() >= command.expires_at:
            raise TimeoutError
        try:
            await before_sending()
        except BaseException:  # that it was sent may be on disk: from there it is decided what is ended
            session.holding.pop(command.name, None)
            raise
        session.holding[command.name] = command.command_id  # the newest command counts
        try:
            await link.write(unit, write.address, write.registers)
        except Refused:
            session.holding.pop(command.name, None)
            raise
    patience = asyncio.get_running_loop().time() + config.confirm_s
    while not await _told(link, unit, order.writes):
        if asyncio.get_running_loop().time() >= patience:
            session.holding.pop(command.name, None)  # nor does it keep an older one from its end
            raise _Failed(f"the registers tell something else after {config.confirm_s:g} s")
        await asyncio.sleep(_RETRY_S)


async def _order(command: Command, link: Link, session: Session, now_ms: int) -> Order:
    """Raises WrongSerial, Impossible, Refused, ConnectionLost."""
    read = await _recognised(link, session)
    if session.device.sunspec is None:
        return plain_order(session.device.commands[command.name], command.parameters)
    lasts_s = max(1, -((now_ms - command.expires_at) // 1000))
    return await sunspec_order(command.name, command.parameters, lasts_s, session.models, read)


async def _reverts(command: Command, link: Link, session: Session) -> Sequence[Write]:
    """Raises as `_order`."""
    read = await _recognised(link, session)
    if session.device.sunspec is None:
        return plain_reverts(session.device.commands[command.name])
    return await sunspec_reverts(command.name, command.parameters, session.models, read)


async def _recognised(link: Link, session: Session) -> Read:
    """What reads the device, once it has told who it is. Raises WrongSerial, Refused, ConnectionLost."""

    async def read(span: Span) -> bytes:
        return await link.read(session.device.unit, span)

    if session.serial_at.size:
        session.check_told(await read(session.serial_at))
    return read


async def end(command: Command, before: Command | None, endpoint: Endpoint, clock: Callable[[], int]) -> None:
    """See `flexrelay_sdk.CommandEnder`: write what `before` wrote, else what `revert`, or a SunSpec model without a
    timer, demands."""
    link, session = await endpoint.online(command.credential)
    async with session.turn:
        if session.holding.get(command.name, command.command_id) != command.command_id:
            return
        try:
            if before is None or not await _rules_again(before, link, session, clock):
                for write in await _reverts(command, link, session):
                    await link.write(session.device.unit, write.address, write.registers)
                session.holding.pop(command.name, None)
        except WrongSerial as error:  # Impossible is a ValueError already
            raise ValueError(str(error)) from None
        except Refused as error:
            if error.transient or error.code == DEVICE_FAILURE:  # a fault of now; power is still on
                raise ConnectionError(f"{command.credential} puts it off: {error}") from None
            raise ValueError(f"the device refuses it: {error}") from None


async def _rules_again(command: Command, link: Link, session: Session, clock: Callable[[], int]) -> bool:
    """Write an older command again; False when the device does not take it any more."""
    try:
        for write in (await _order(command, link, session, clock())).writes:
            if clock() >= command.expires_at:
                return False
            await link.write(session.device.unit, write.address, write.registers)
    except (Impossible, Refused) as error:
        if isinstance(error, Refused) and error.transient:
            raise
        log.warning("%s: %s does not rule again: %s", command.credential, command.command_id, error)
        return False
    session.holding[command.name] = command.command_id
    return True


async def _told(link: Link, unit: int, writes: Sequence[Write]) -> bool:
    for write in writes:
        if write.read_back:
            data = await link.read(unit, write.span)
            if data != b"".join(register.to_bytes(2, "big") for register in write.registers):
                return False
    return any(write.read_back for write in writes)
