"""What was received and what was answered to it, so that a duplicate gets the same answer and nothing is done twice.

RFC 7252 §4.2, §4.5: a message id counts for 247 s (EXCHANGE_LIFETIME). That is bounded by number and bytes here: a
flood makes the cache forget sooner, never grow.
"""

from typing import Final, Generic, Literal, TypeVar

LIFETIME_S: Final = 247.0
PENDING: Final = b""
"""Received, not answered yet."""

_OVERHEAD: Final = 200
"""What an entry costs besides the answer's bytes: key, tuple, place in the dict."""

Key = TypeVar("Key")


class Replies(Generic[Key]):
    """Answers by (peer, message id), the oldest first out."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._entries: dict[Key, tuple[float, bytes]] = {}
        self.bytes = 0
        self.forgotten = 0
        """Entries that had to go before their lifetime was over."""

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, key: Key, now: float) -> bytes | Literal[True]:
        """True when the message is new (it is pending from now on); else its answer, PENDING while there is none."""
        entries = self._entries
        found = entries.get(key)
        if found is not None:
            if now - found[0] < LIFETIME_S:
                return found[1]
            self.forget(key)
        entries[key] = (now, PENDING)
        self.bytes += _OVERHEAD
        if len(entries) > self._most or self.bytes > self._most_bytes:
            oldest = next(iter(entries))
            if now - entries[oldest][0] < LIFETIME_S:
                self.forgotten += 1
            self.forget(oldest)
        return True

    def answer(self, key: Key, reply: bytes) -> None:
        """Keep the answer of a message that has begun (one that was forgotten meanwhile stays so)."""
        found = self._entries.get(key)
        if found is not None:
            self._entries[key] = (found[0], reply)
            self.bytes += len(reply) - len(found[1])
            while self.bytes > self._most_bytes and len(self._entries) > 1:
                self.forgotten += 1
                self.forget(next(iter(self._entries)))

    def forget(self, key: Key) -> None:
        """As if the message had never come: its next copy is looked at again."""
        found = self._entries.pop(key, None)
        if found is not None:
            self.bytes -= _OVERHEAD + len(found[1])

    def expire(self, now: float) -> None:
        """Let go of what is older than its lifetime."""
        old = []
        for key, (at, _) in self._entries.items():
            if now - at < LIFETIME_S:
                break
            old.append(key)
        for key in old:
            self.forget(key)
