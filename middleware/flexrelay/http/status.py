"""What a part of the process tells operators: checks of readiness and figures for Prometheus."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness; `detail` says what is wrong and what to do."""

    name: str
    good: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Gauge:
    """One figure; `counter` when it only grows. Labels must not hold personal data."""

    name: str
    help: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    counter: bool = False


class StatusSource(Protocol):
    """Anything with checks and figures; both are cheap and never block."""

    def checks(self) -> Iterable[Check]: ...

    def gauges(self) -> Iterable[Gauge]: ...
