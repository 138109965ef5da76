"""Instants of readings that get the time of their reception: each of a sender's another one, since two values of one
instant are what a cheat looks like."""

from collections.abc import Mapping
from typing import Final

_SET_BACK_MS: Final = 600_000
"""Further ahead no burst brings a sender: such an instant is of a clock that was set back since, and does not count."""


def next_instant(last_ms: int, now_ms: int) -> int:
    """Of what comes now, after something of `last_ms`; UTC ms."""
    return last_ms + 1 if now_ms <= last_ms < now_ms + _SET_BACK_MS else now_ms


def counting(last_ms: Mapping[str, int], now_ms: int) -> dict[str, int]:
    """Those of the last instants, by sender, that are not over."""
    return {sender: at for sender, at in last_ms.items() if now_ms <= at < now_ms + _SET_BACK_MS}
