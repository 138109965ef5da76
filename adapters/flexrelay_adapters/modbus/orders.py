"""Commands as register writes: what is written, what must be read afterwards, and what ends it.

With SunSpec: `limit_power` by WMaxLimPct (models 704, 123), `set_power` by WSet (704) or the storage rates (124),
`switch` by Conn (123). Where a model has a timer it is set, so that the device ends the command by itself.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from flexrelay_adapters.modbus.config import WriteStep
from flexrelay_adapters.modbus.frame import Found
from flexrelay_adapters.modbus.sunspec import Point, point
from flexrelay_adapters.modbus.values import Span
from flexrelay_sdk.mapping import UNITS
from flexrelay_sdk.vocabulary import LIMIT_POWER, SET_POWER, SWITCH

Read = Callable[[Span], Awaitable[bytes]]
MAX_TIMER_S: Final = 0xFFFE
"""Of a 16-bit timer; all ones mean that there is none."""


class Impossible(ValueError):
    """The device has nothing that could do the command."""


class Write(NamedTuple):
    """Registers to be written at once; `read_back`: whether they tell it afterwards."""

    address: int
    registers: tuple[int, ...]
    read_back: bool = True

    @property
    def span(self) -> Span:
        return Span("holding", self.address, len(self.registers))


class Order(NamedTuple):
    writes: tuple[Write, ...]


def plain_order(steps: Sequence[WriteStep], parameters: Mapping[str, int]) -> Order:
    """Raises Impossible."""
    writes = []
    for step in steps:
        number = Decimal(step.value if step.parameter is None else parameters[step.parameter])  # type: ignore[arg-type]  # one of both is there
        if step.unit is not None:
            number /= UNITS["w"][step.unit]
        if step.parameter is not None:
            number = (-number if step.negate else number).scaleb(-step.scale)
        try:
            writes.append(Write(step.address, tuple(step.format.registers(number)), step.read_back))
        except ValueError as error:
            raise Impossible(f"register {step.address}: {error}") from None
    return Order(tuple(writes))


def plain_reverts(steps: Sequence[WriteStep]) -> tuple[Write, ...]:
    """What ends it. Raises Impossible."""
    try:
        return tuple(
            Write(step.address, tuple(step.format.registers(step.revert)), step.read_back)
            for step in steps
            if step.revert is not None
        )
    except ValueError as error:
        raise Impossible(f"revert: {error}") from None


async def sunspec_order(
    name: str, parameters: Mapping[str, int], lasts_s: int, models: Sequence[Found], read: Read
) -> Order:
    """Raises Impossible, and what `read` raises."""
    device = _Device(models, read)
    if name == LIMIT_POWER:
        return await _limit(device, parameters, lasts_s)
    if name == SET_POWER:
        return await _set(device, parameters["power_w"], lasts_s)
    if name == SWITCH:
        return await _switch(device, parameters["on"], lasts_s)
    raise Impossible(f"SunSpec has nothing for {name}")


async def sunspec_reverts(
    name: str, parameters: Mapping[str, int], models: Sequence[Found], read: Read
) -> tuple[Write, ...]:
    """What ends it, empty when the device does that by itself. It depends on no rating or limit, which may have become
    another since, or be told no more. Raises Impossible, and what `read` raises."""
    device = _Device(models, read)
    if name == LIMIT_POWER and device.has(704):
        model, timer, point_, value = 704, _timer(704, "WMaxLimPct"), "WMaxLimPctEna", 0
    elif name == LIMIT_POWER:
        model, timer, point_, value = 123, _timer(123, "WMaxLimPct"), "WMaxLim_Ena", 0
    elif name == SET_POWER and device.has(704) and await device.implements(704, "WSet"):
        model, timer, point_, value = 704, _timer(704, "WSet"), "WSetEna", 0
    elif name == SET_POWER:
        model, timer, point_, value = 124, "InOutWRte_RvrtTms", "StorCtl_Mod", 0
    elif name == SWITCH and parameters["on"]:
        return ()
    elif name == SWITCH:
        model, timer, point_, value = 123, "Conn_RvrtTms", "Conn", 1
    else:
        raise Impossible(f"SunSpec has nothing for {name}")
    if not device.has(model):
        raise Impossible(f"the device has no model {model} any more")
    return () if await device.implements(model, timer) else (await device.write(model, point_, value),)


class _Device:
    """A device's models with its points as numbers."""

    def __init__(self, models: Sequence[Found], read: Read) -> None:
        self._places = {found.model: found for found in reversed(models)}
        self._read = read

    def has(self, model: int) -> bool:
        return model in self._places

    async def number(self, model: int, name: str) -> Decimal | None:
        """A point's value with its scale factor; None where the device has not got it."""
        found = self._places.get(model)
        each = point(model, name)
        if found is None or each.offset >= found.length + 2:
            return None
        value = each.format.read(await self._read(each.span(found.address)), 0)
        exponent = await self._exponent(each, found) if value is not None else None
        return None if value is None or exponent is None else Decimal(str(value)).scaleb(exponent)

    async def implements(self, model: int, name: str) -> bool:
        return await self.number(model, name) is not None

    async def write(self, model: int, name: str, value: Decimal | int, read_back: bool = True) -> Write:
        """Raises Impossible when the point cannot hold the value."""
        found = self._places[model]
        each = point(model, name)
        exponent = await self._exponent(each, found)
        if exponent is None:
            raise Impossible(f"model {model} has no scale factor for {name}")
        try:
            registers = each.format.registers(Decimal(value).scaleb(-exponent))
        except ValueError as error:
            raise Impossible(f"{name} of model {model}: {error}") from None
        return Write(found.address + each.offset, tuple(registers), read_back)

    async def _exponent(self, each: Point, found: Found) -> int | None:
        if not each.scale:
            return 0
        scale = point(each.model, each.scale)
        value = scale.format.read(await self._read(scale.span(found.address)), 0)
        return None if value is None or not -10 <= value <= 10 else int(value)


async def _limit(device: _Device, parameters: Mapping[str, int], lasts_s: int) -> Order:
    if parameters["max_power_w"] < 0:
        raise Impossible("WMaxLimPct limits what is fed in; it cannot demand it (max_power_w is below zero)")
    feed_in_w = max(0, -parameters["min_power_w"])
    for model, ena, base in ((704, "WMaxLimPctEna", (702, "WMax")), (123, "WMaxLim_Ena", (121, "WMax"))):
        if not device.has(model):
            continue
        rated_w = await device.number(*base)
        if rated_w is None:
            rated_w = await device.number(*((702, "WMaxRtg") if model == 704 else (120, "WRtg")))
        if not rated_w:
            raise Impossible(f"the device does not tell the power that WMaxLimPct of model {model} is a part of")
        percent = min(Decimal(100), Decimal(100 * feed_in_w) / rated_w)
        writes = [await device.write(model, "WMaxLimPct", percent)]
        return await _ended(device, model, writes, "WMaxLimPct", ena, lasts_s)
    raise Impossible("the device has neither model 704 nor 123")


async def _set(device: _Device, power_w: int, lasts_s: int) -> Order:
    if device.has(704) and await device.implements(704, "WSet"):
        writes = [await device.write(704, "WSetMod", 1), await device.write(704, "WSet", -power_w)]
        return await _ended(device, 704, writes, "WSet", "WSetEna", lasts_s)
    if not device.has(124):
        raise Impossible("the device has neither model 704 with WSet nor 124")
    most_w = await device.number(124, "WChaMax")
    if not most_w:
        raise Impossible("the device does not tell WChaMax (model 124)")
    if abs(power_w) > most_w:
        raise Impossible(f"power_w must be from {-most_w:f} to {most_w:f} W (WChaMax)")
    percent = Decimal(100 * abs(power_w)) / most_w
    charge, discharge = (percent, Decimal(0)) if power_w > 0 else (Decimal(0), percent)
    mode = 3 if power_w == 0 else 1 if power_w > 0 else 2
    writes = [await device.write(124, "OutWRte", discharge), await device.write(124, "InWRte", charge)]
    timed = await device.implements(124, "InOutWRte_RvrtTms")
    if timed:
        writes.append(await device.write(124, "InOutWRte_RvrtTms", min(lasts_s, MAX_TIMER_S), read_back=False))
    writes.append(await device.write(124, "StorCtl_Mod", mode))
    return Order(tuple(writes))


async def _switch(device: _Device, on: int, lasts_s: int) -> Order:
    if not device.has(123):
        raise Impossible("the device has no model 123")
    timed = await device.implements(123, "Conn_RvrtTms")
    writes = []
    if timed:
        writes.append(await device.write(123, "Conn_RvrtTms", min(lasts_s, MAX_TIMER_S), read_back=False))
    writes.append(await device.write(123, "Conn", on))
    return Order(tuple(writes))


async def _ended(device: _Device, model: int, writes: list[Write], what: str, ena: str, lasts_s: int) -> Order:
    """The timer, then what makes it count."""
    timer = _timer(model, what)
    timed = await device.implements(model, timer)
    if timed:
        if model == 704 and await device.implements(704, f"{ena}Rvrt"):
            writes.append(await device.write(704, f"{ena}Rvrt", 0))
        writes.append(await device.write(model, timer, min(lasts_s, MAX_TIMER_S), read_back=False))
    writes.append(await device.write(model, ena, 1))
    return Order(tuple(writes))


def _timer(model: int, what: str) -> str:
    return f"{what}RvrtTms" if model == 704 else f"{what}_RvrtTms"
