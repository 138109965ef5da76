"""What the adapter remembers over a restart: its subscription, and up to where each variable is on disk.

It saves work, nothing more: without it (or with an old one) the server tells some things again, and the gateway knows
them as duplicates.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Resume:
    """`subscription` and `sequence` of the newest stored notification; `newest` maps node ids to ticks. `layout` tells
    whether the client handles still mean the same."""

    layout: str = ""
    subscription: int = 0
    sequence: int = 0
    publishing_ms: float = 0.0
    keep_alive_s: float = 0.0
    server_started: int = 0
    newest: dict[int, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Resume":
        """An empty one when there is none that can be read."""
        try:
            values: dict[str, Any] = json.loads(path.read_text())
            newest = {int(handle): int(ticks) for handle, ticks in values.pop("newest").items()}
            return cls(
                str(values["layout"]),
                int(values["subscription"]),
                int(values["sequence"]),
                float(values["publishing_ms"]),
                float(values["keep_alive_s"]),
                int(values.get("server_started", 0)),
                newest,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def write(self, path: Path) -> None:
        """Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(self.__dict__, sort_keys=True))
        os.replace(temporary, path)  # noqa: PTH105  # atomic
