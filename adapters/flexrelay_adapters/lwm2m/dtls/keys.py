"""Pre-shared keys by identity, from a file that may change while the server runs."""

import time
from pathlib import Path
from typing import Final

CHECK_S: Final = 1.0
MAX_KEY: Final = 64
MAX_IDENTITY: Final = 128
RESERVED: Final = "udp:"
"""How the credentials of plain CoAP begin: no identity may look like one."""


def parse_keys(text: str) -> dict[str, bytes]:
    """`identity:key` a line, the key in hexadecimal; empty lines and # comments are passed over.

    Raises ValueError naming the line, never the key.
    """
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        identity, _, value = line.rpartition(":")
        if not identity or len(identity.encode()) > MAX_IDENTITY or identity.startswith(RESERVED):
            raise ValueError(f"line {number}: expected identity:key, an identity of 1 to {MAX_IDENTITY} bytes")
        try:
            key = bytes.fromhex(value)
        except ValueError:
            raise ValueError(f"line {number}: the key of {identity} is not hexadecimal") from None
        if not 8 <= len(key) <= MAX_KEY:
            raise ValueError(f"line {number}: the key of {identity} has {len(key)} bytes; 8 to {MAX_KEY} are taken")
        if identity in keys:
            raise ValueError(f"line {number}: {identity} stands twice")
        keys[identity] = key
    return keys


class KeyFile:
    """The keys of a file. A change that cannot be read leaves the former keys and says so in `trouble`."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError when it cannot be read now."""
        self._path = path
        self._stamp: tuple[int, int] = (0, 0)
        self._checked = 0.0
        self.trouble = ""
        self._keys: dict[str, bytes] = {}
        self._read()
        if self.trouble:
            raise ValueError(self.trouble)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, identity: str) -> bytes | None:
        """The key of an identity; the file is looked at again when it has changed."""
        if time.monotonic() - self._checked > CHECK_S:
            self._read()
        return self._keys.get(identity)

    def _read(self) -> None:
        self._checked = time.monotonic()
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp == self._stamp:
                return
            self._keys = parse_keys(self._path.read_text())
            self._stamp = stamp
            self.trouble = ""
        except (OSError, ValueError) as error:
            self.trouble = f"{self._path}: {error}"
