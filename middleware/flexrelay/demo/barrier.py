"""Waiting in market time: the story goes on when the market clock and the journals have got there."""

import asyncio
import time

from flexrelay.app import Gateway
from flexrelay.demo.cast import Cast
from flexrelay_sdk.clock import wall_ms

PATIENCE_S = 180.0


class StoryStuck(Exception):
    """Something that the story waits for did not come; the message says what."""


class StoryLate(StoryStuck):
    """The preparations took longer than the lead before the first gate."""


async def market_reaches(cast: Cast, instant: int) -> None:
    """Sleep until the market clock shows `instant` (UTC ms)."""
    ahead = cast.site.clock.wall(instant) - wall_ms()
    if ahead > 0:
        await asyncio.sleep(ahead / 1000)


async def still_before(cast: Cast, instant: int, what: str) -> None:
    """Raise StoryLate when the market clock is past `instant`: this machine is too slow for the lead."""
    if cast.market_now() >= instant:
        raise StoryLate(f"{what} came too late for the gate")


async def journals_hold(cast: Cast, until: int, *, before: int | None = None) -> None:
    """Wait until every gateway has taken, and its twin and windows have consumed, all readings up to `until`.

    Raises StoryLate when the market clock gets to `before` first, StoryStuck when that takes too long.
    """
    deadline = time.monotonic() + PATIENCE_S

    async def patiently(otherwise: str) -> None:
        if before is not None:
            await still_before(cast, before, f"{otherwise}: the readings of the past days")
        if time.monotonic() > deadline:
            raise StoryStuck(otherwise)
        await asyncio.sleep(0.05)

    wanted = [
        (org, device.identity.name, device.identity.did) for device in cast.devices.values() for org in device.receivers
    ]
    wanted += [(device.org, device.name, device.did) for device in cast.unsigned.values()]
    for org, name, did in wanted:
        while not await _holds(cast.site.gateways[org], did, until):
            await patiently(f"{org} did not get the reading of {name} at {until}")
    # readings of later instants go on coming: what must be consumed is what is there now
    ends = {org: gateway.journal.end for org, gateway in cast.site.gateways.items()}
    for org, end in ends.items():
        windows = cast.site.gateways[org].windows
        while windows.position < end:
            await patiently(f"{org}'s windows stand at {windows.position} of {end} journal entries")


async def delivery_reaches(gateway: Gateway, position: int) -> None:
    """Wait until the proof of delivery has taken the journal up to an entry: until then it may confirm commands."""
    deadline = time.monotonic() + PATIENCE_S
    while await gateway.delivery.position() < position:
        if time.monotonic() > deadline:
            raise StoryStuck(f"{gateway.org}'s proof of delivery does not reach journal entry {position}")
        await asyncio.sleep(0.05)


async def _holds(gateway: Gateway, did: str, until: int) -> bool:
    newest = await gateway.twin.newest(did)
    return newest is not None and newest.observed_at >= until
