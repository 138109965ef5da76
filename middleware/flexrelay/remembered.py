"""What the ledger has said and will say again, in a small file beside the data: for a start while no ledger answers."""

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flexrelay.config import ConfigError
from flexrelay.founding import MarketClock
from flexrelay.ledger.port import Ledger, LedgerUnavailable, NeedsAttention

log = logging.getLogger(__name__)

_RETRY_S: Final = 1.0


class Remembered:
    """One JSON value. Nothing in it is the only copy: a file that is gone or damaged is as if nothing was known."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Any | None:
        """The value, None when there is none. Blocks."""
        try:
            return json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.warning("%s cannot be used, the ledger is asked: %s", self._path, error)
            return None

    def keep(self, value: Any) -> None:
        """Replace what is there, whole or not at all; a file that cannot be written is logged. Blocks."""
        if value == self.read():
            return
        draft = self._path.with_name(f".{self._path.name}.new")
        try:
            draft.unlink(missing_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(value, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            log.warning("%s cannot be written, the next start needs the ledger: %s", self._path, error)


async def network_record(reader: Ledger, remembered: Remembered, patient: bool) -> tuple[dict[str, Any], bool]:
    """(the network's record, whether the ledger itself gave it now). `patient`: a ledger that does not answer is waited
    for when nothing is remembered of it. Raises LedgerError, Refused."""
    known: Any = remembered.read()
    while True:
        try:
            record: dict[str, Any] = await reader.evaluate("network.show", {})
        except LedgerUnavailable as error:
            if not patient or isinstance(error, NeedsAttention):
                raise
            if _complete(known):
                return known, False
            await asyncio.sleep(_RETRY_S)
        else:
            await asyncio.to_thread(remembered.keep, record)
            return record, True


def known_network(remembered: Remembered) -> dict[str, Any]:
    """The network's record without asking the ledger. Raises LedgerUnavailable when none is remembered."""
    record: Any = remembered.read()
    if not _complete(record):
        raise LedgerUnavailable("nothing is known of the network yet: wait until the gateway has been up once")
    known: dict[str, Any] = record
    return known


def _complete(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("clock"), dict):
        return False
    named = all(isinstance(record.get(name), str) for name in ("network", "operator"))
    return named and {*MarketClock().to_json()} == {*record["clock"]}


async def confirmed(reader: Ledger, record: Mapping[str, Any], folder: Path) -> None:
    """Raises ConfigError when the ledger, once it answers, is another than the remembered one."""
    while True:
        try:
            found = await reader.evaluate("network.show", {})
            break
        except LedgerUnavailable:
            await asyncio.sleep(_RETRY_S)
    for field in ("network", "clock", "operator", "created_ms"):
        if found.get(field) != record.get(field):
            raise ConfigError(
                f"ledger: the ledger is of another network than the data in {folder} ({field} {found.get(field)!r}, "
                f"not {record.get(field)!r}): check the connection profiles"
            )
