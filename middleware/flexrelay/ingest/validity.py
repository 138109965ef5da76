"""When a device's keys count, and when it is out of action, in market time: what the DID log on the ledger says.

A reading counts by its `observed_at`, whenever it arrives: one that was observed and signed before a rotation is good
with the old key, one observed while the device was suspended is not good with any.
"""

from typing import NamedTuple


class KeySpan(NamedTuple):
    """A key of a device that is no longer the current one; it counted in [start, end), market time in UTC ms."""

    version: int
    key: str
    start: int
    end: int


class Gap(NamedTuple):
    """The device was suspended or deactivated in [start, end); None: it still is."""

    start: int
    end: int | None


class Validity:
    """The current key from `since` on (None: it does not count yet), the keys before it, and the gaps.

    `since` of a first key is 0: what was observed before the registration comes in, though it is no evidence for a
    contract. Events without market time (0 in the methods here) leave nothing of the old key and close nothing.
    """

    __slots__ = ("gaps", "key", "past", "since", "version")

    def __init__(self, key: str, version: int) -> None:
        self.key = key
        self.version = version
        self.since: int | None = 0
        self.past: tuple[KeySpan, ...] = ()
        self.gaps: tuple[Gap, ...] = ()

    def rotate(self, key: str, version: int, at: int) -> None:
        if version <= self.version:
            return  # an event that came twice
        active = self.since is not None
        self._close(at)
        self.key, self.version = key, version
        self.since = at if active else None

    def end(self, at: int) -> None:
        """Suspended or deactivated."""
        self._close(at)
        self.since = None
        if not self.gaps or self.gaps[-1].end is not None:
            self.gaps = (*self.gaps, Gap(at, None))

    def reopen(self, at: int) -> None:
        """Reinstated, with the current key."""
        if self.gaps and self.gaps[-1].end is None:
            *before, last = self.gaps
            self.gaps = (*before, Gap(last.start, at)) if at else tuple(before)
        self.since = at

    def key_at(self, version: int, observed_at: int) -> str | None:
        """The key of this version where a reading of this instant may be signed with it."""
        if version == self.version:
            return self.key if self.since is not None and observed_at >= self.since else None
        for span in self.past:
            if span.version == version and span.start <= observed_at < span.end:
                return span.key
        return None

    def out_at(self, observed_at: int) -> bool:
        """Whether the device was out of action at this instant."""
        return any(gap.start <= observed_at and (gap.end is None or observed_at < gap.end) for gap in self.gaps)

    def _close(self, at: int) -> None:
        if self.since is not None and self.since < at:
            self.past = (*self.past, KeySpan(self.version, self.key, self.since, at))
