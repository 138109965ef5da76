"""What entries on their way meet that somebody has to look at: told in the log, in readiness and in metrics."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from flexrelay.ledger.port import NeedsAttention

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alarm:
    """An entry that cannot go on by itself, so far: `kind` as the ledger names it, `seconds` since it began."""

    intent_id: str
    kind: str
    message: str
    seconds: float


@dataclass(slots=True)
class _Trouble:
    intent_id: str
    kind: str
    message: str
    patience_s: float
    since: float
    told: float


class Alarms:
    """The troubles of entries, each until its entry goes on. Peers that are a block apart disagree for a moment: a
    trouble stands as an alarm when it has lasted for its patience, and is told again every `again_s`."""

    def __init__(self, *, again_s: float = 60.0, now: Callable[[], float] = time.monotonic) -> None:
        self._again_s = again_s
        self._now = now
        self._troubles: dict[int, _Trouble] = {}
        self.counts: Counter[str] = Counter()
        """How often each kind was met since the start."""

    def met(self, entry: int, intent_id: str, error: NeedsAttention) -> bool:
        """Whether it is a new one for the entry."""
        now = self._now()
        self.counts[error.alarm] += 1
        known = self._troubles.get(entry)
        if known is None or known.kind != error.alarm:
            began = _Trouble(intent_id, error.alarm, str(error), error.patience_s, now, float("-inf"))
            self._troubles[entry] = began
            logger.warning("intent %s: %s: %s; trying again", intent_id, error.alarm, error)
            return True
        known.message, known.patience_s = str(error), error.patience_s
        if now - known.since >= known.patience_s and now - known.told >= self._again_s:
            known.told = now
            logger.error(
                "intent %s has not gone on for %.0f s, %s: %s; it is tried again until its deadline",
                intent_id, now - known.since, error.alarm, error,
            )  # fmt: skip
        return False

    def over(self, entry: int) -> None:
        """The entry has gone on, or ended."""
        self._troubles.pop(entry, None)

    @property
    def standing(self) -> list[Alarm]:
        """Those that have lasted, the oldest first."""
        now = self._now()
        found = [
            Alarm(item.intent_id, item.kind, item.message, now - item.since)
            for item in self._troubles.values()
            if now - item.since >= item.patience_s
        ]
        return sorted(found, key=lambda alarm: -alarm.seconds)
