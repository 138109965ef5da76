"""What an onboarding did, or would do: one line a device, as JSON or CSV."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from flexrelay.commissioning.errors import CommissioningError
from flexrelay.identity.keyfile import write_private


class Ended(Enum):
    ONBOARDED = "onboarded"
    ALREADY = "already"
    """It was there before."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """`secrets` are the files that hold what was made for it; `reason` says why it failed."""

    line: int
    org: str
    name: str
    did: str
    ended: Ended
    reason: str
    receivers: tuple[str, ...]
    credentials: tuple[str, ...]
    secrets: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "line": self.line,
            "org": self.org,
            "name": self.name,
            "did": self.did,
            "ended": self.ended.value,
            "reason": self.reason,
            "receivers": list(self.receivers),
            "credentials": list(self.credentials),
            "secrets": list(self.secrets),
        }


_COLUMNS: Final = ("line", "org", "name", "did", "ended", "reason", "receivers", "credentials", "secrets")


@dataclass(frozen=True, slots=True)
class OnboardingReport:
    devices: tuple[DeviceReport, ...]
    notes: tuple[str, ...]
    seconds: float

    def count(self, ended: Ended) -> int:
        return sum(device.ended is ended for device in self.devices)

    @property
    def per_second(self) -> float:
        """Devices onboarded in a second."""
        return round(self.count(Ended.ONBOARDED) / self.seconds, 1) if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": len(self.devices),
            **{ended.value: self.count(ended) for ended in Ended},
            "seconds": self.seconds,
            "per_second": self.per_second,
            "notes": list(self.notes),
            "devices": [device.to_json() for device in self.devices],
        }

    def write(self, path: Path) -> None:
        """See `write_report`."""
        write_report(path, self.to_json(), _COLUMNS, (device.to_json() for device in self.devices))


def check_place(path: Path) -> None:
    """Before anything is done that is to be reported there. Raises CommissioningError."""
    if path.is_dir():
        raise CommissioningError(f"{path} is a folder: name a file for the report")
    if not path.parent.is_dir():
        raise CommissioningError(f"there is no folder {path.parent} for the report")


def write_report(
    path: Path, document: Mapping[str, Any], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """The rows as CSV for `.csv`, else the document as JSON; there in full or not at all. Raises CommissioningError,
    KeyFileError."""
    check_place(path)
    if path.suffix != ".csv":
        text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    else:
        told = io.StringIO()
        writer = csv.writer(told)
        writer.writerow(columns)
        for values in rows:
            writer.writerow(" ".join(v) if isinstance(v := values.get(name, ""), list) else v for name in columns)
        text = told.getvalue()
    write_private(path, text.encode(), replace=True)
