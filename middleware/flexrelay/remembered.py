"""What the ledger has said and will say again, in a small file beside the data: for a start while no ledger answers."""

import json
import logging
import os
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


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
