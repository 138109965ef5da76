"""Outcomes by Idempotency-Key: a repeated request gets the answer of the first, and nothing is stored twice."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from flexrelay_adapters._http import Refusal

MAX_KEY = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body as they were given."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Kept:
    digest: bytes
    answer: Answer
    at: float


Key = tuple[str, str, str]
"""Identity, path, Idempotency-Key."""


class Outcomes:
    """In memory and bounded by number, bytes and age; the oldest go. After a restart the gateway still recognises a
    repeated reading that carries its own time."""

    def __init__(self, most: int, most_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._under_way: dict[Key, bytes] = {}
        self.bytes = 0
        """What the kept answers take, about."""

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self, key: Key, body: bytes) -> Answer | None:
        """The answer that the key has had; None: this request is the first, and `end` or `forget` must follow. Raises
        Refusal: 422 for another body, 409 while the first is under way."""
        if not 1 <= len(key[2]) <= MAX_KEY:
            raise Refusal(400, "bad_idempotency_key", f"1 to {MAX_KEY} characters")
        self._drop()
        digest = hashlib.sha256(body).digest()
        kept = self._kept.get(key)
        known = kept.digest if kept is not None else self._under_way.get(key, digest)
        if known != digest:
            raise Refusal(422, "idempotency_key_reused", "this key came with another body before")
        if kept is not None:
            return kept.answer
        if key in self._under_way:
            raise Refusal(409, "under_way", "the first request with this key is under way", {"retry-after": "1"})
        self._under_way[key] = digest
        return None

    def end(self, key: Key, answer: Answer) -> None:
        """Keep the answer of the first request."""
        self._kept[key] = _Kept(self._under_way.pop(key), answer, self._clock())
        self.bytes += _size(key, answer)
        self._drop()

    def forget(self, key: Key) -> None:
        """The first request came to nothing: the next one is the first."""
        self._under_way.pop(key, None)

    def _drop(self) -> None:
        before = self._clock() - self._ttl_s
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if len(self._kept) <= self._most and self.bytes <= self._most_bytes and kept.at >= before:
                break
            del self._kept[key]
            self.bytes -= _size(key, kept.answer)


def _size(key: Key, answer: Answer) -> int:
    return 200 + sum(map(len, key)) + len(answer.body)
