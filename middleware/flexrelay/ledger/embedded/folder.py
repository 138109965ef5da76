"""A ledger's folder: its files, its lock and the operator's secret.

blocks.dat    every block, append-only: the ledger itself
private.db    private values (not on the chain, so not to be rebuilt from it)
operator.key  the secret behind the operator's attestations
state.db      derived from the blocks; deleted, it is rebuilt
LOCK          held by the process that has the folder open
"""

import fcntl
import hashlib
import os
import secrets
from pathlib import Path

from flexrelay.ledger.embedded.errors import LedgerCorrupt, LedgerLocked

BLOCKS = "blocks.dat"
STATE = "state.db"
PRIVATE = "private.db"
OPERATOR = "operator.key"
LOCK = "LOCK"


def lock(folder: Path) -> int:
    """Take the folder's exclusive lock; the returned descriptor holds it until it is closed. Raises LedgerLocked."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise LedgerLocked(f"{folder} is open in another process; one process at a time writes a ledger") from None
    return descriptor


def operator_secret(folder: Path, *, create: bool) -> bytes:
    """The 32 bytes of operator.key. Raises LedgerCorrupt when it is missing or damaged and may not be made anew."""
    path = folder / OPERATOR
    if create and not (path.exists() and path.stat().st_size == 32):
        fresh = folder / (OPERATOR + ".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        sync_folder(folder)
    try:
        secret = path.read_bytes()
    except FileNotFoundError:
        raise LedgerCorrupt(f"{path} is missing: no attestation can be checked; restore it from a copy") from None
    if len(secret) != 32:
        raise LedgerCorrupt(f"{path} has {len(secret)} bytes, not 32: restore it from a copy")
    return secret


def commitment(secret: bytes) -> bytes:
    """What block 0 says about the operator's secret."""
    return hashlib.sha256(b"flexrelay-operator-v1" + secret).digest()


def sync_folder(folder: Path) -> None:
    """Make the names in the folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
