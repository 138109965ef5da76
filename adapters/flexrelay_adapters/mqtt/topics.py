"""Topic patterns with one {device} level: the credential under which a device is known on this broker."""

from collections.abc import Callable
from typing import Final

DEVICE = "{device}"
MAX_TOPIC: Final = 1000
"""Characters, for protocols that remember what stands in topics: longer ones are none of theirs."""


class TopicPattern:
    """A topic such as `flexrelay/v1/dso/{device}/readings`; `+` matches any one level. Raises ValueError."""

    def __init__(self, pattern: str) -> None:
        levels = pattern.split("/")
        if levels.count(DEVICE) != 1:
            raise ValueError(f"topic {pattern!r} needs the level {DEVICE} exactly once")
        for level in levels:
            if level == "#" or (level not in (DEVICE, "+") and any(sign in level for sign in "+#{}\0")):
                raise ValueError(f"topic {pattern!r}: level {level!r} is not allowed; use plain levels, + and {DEVICE}")
        if pattern.startswith("$"):
            raise ValueError(f"topic {pattern!r} starts with $; a shared group has its own field, `shared_group`")
        self.pattern = pattern
        self._levels = levels
        self._device = levels.index(DEVICE)
        self.filter = pattern.replace(DEVICE, "+")
        """The subscription filter."""
        self.credential_of: Callable[[str], str | None] = self._by_ends if "+" not in levels else self._by_levels
        """The device level of a topic name, None when the topic is not of this pattern."""
        self._head, self._tail = pattern.split(DEVICE)

    def topic_for(self, credential: str) -> str:
        """The topic of one device. Raises ValueError for a credential that is no single level."""
        if not credential or any(sign in credential for sign in "/+#\0"):
            raise ValueError(f"credential {credential[:80]!r} cannot be a topic level")
        return self.pattern.replace(DEVICE, credential)

    def _by_ends(self, topic: str) -> str | None:
        if topic.startswith(self._head) and topic.endswith(self._tail):
            device = topic[len(self._head) : len(topic) - len(self._tail)]
            if device and "/" not in device:
                return device
        return None

    def _by_levels(self, topic: str) -> str | None:
        levels = topic.split("/")
        if len(levels) != len(self._levels):
            return None
        for level, expected in zip(levels, self._levels, strict=True):
            if expected not in (DEVICE, "+", level):
                return None
        return levels[self._device] or None
