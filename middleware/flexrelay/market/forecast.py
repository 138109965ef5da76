"""The DSO's day-ahead forecast of a congestion point and the need that follows from it. Powers in W per ISP."""

from collections.abc import Sequence


def greatest_feed_in(days: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The prudent forecast: per ISP the lowest net power (= the greatest feed-in) of comparable days.

    `days` are net powers per ISP of equal length, positive = withdrawal. Raises ValueError without days or when their
    lengths differ (a day with a change of summer time compares with none of another length).
    """
    if not days:
        raise ValueError("a forecast from history needs at least one complete day")
    return tuple(min(values) for values in zip(*days, strict=True))


def withdrawal_need(forecast_w: Sequence[int], limit_w: int, granularity_w: int) -> tuple[int, ...]:
    """How much more withdrawal each ISP needs so that the feed-in stays within `limit_w`, rounded up to granules."""
    return tuple(-(-max(0, -power - limit_w) // granularity_w) * granularity_w for power in forecast_w)


def feed_in_room(forecast_w: Sequence[int], limit_w: int) -> tuple[int, ...]:
    """How much feed-in each ISP can take beyond the forecast (rebound room; headroom of a local auction)."""
    return tuple(max(0, limit_w + power) for power in forecast_w)
