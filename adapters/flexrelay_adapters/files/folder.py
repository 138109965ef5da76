"""The folder on disk: which files are whole, and where they go when they are done. Blocking; run in a thread."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_HALF: Final = (".tmp", ".part", ".partial", ".filepart", ".crdownload", "~")
_LOOKED_AT: Final = 10_000
"""Files that one look remembers; the others are seen when these are gone."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file that stood still long enough."""

    credential: str
    path: Path
    size: int
    changed_ns: int


class DropFolder:
    """`root/in`, `root/done`, `root/failed`."""

    def __init__(self, root: Path, settle_s: float) -> None:
        self.root = root
        self._settle_s = settle_s
        self._seen: dict[Path, tuple[tuple[int, int, int], float]] = {}

    def look(self) -> list[Found]:
        """Whole files, oldest first. A file that still changes, or is named like one under way, is left. Raises
        OSError when the folder is not there."""
        now, seen, whole = time.monotonic(), {}, []
        for credential, entry in self._entries():
            status = entry.stat(follow_symlinks=False)
            path, mark = Path(entry.path), (status.st_ino, status.st_size, status.st_mtime_ns)
            known, since = self._seen.get(path, (None, now))
            since = since if known == mark else now
            seen[path] = (mark, since)
            if now - since >= self._settle_s and known == mark:
                whole.append(Found(credential, path, status.st_size, status.st_mtime_ns))
        self._seen = seen
        return sorted(whole, key=lambda found: (found.changed_ns, found.path.name))

    def _entries(self) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
        count = 0
        with os.scandir(self.root / "in") as senders:
            for sender in senders:
                if not sender.is_dir(follow_symlinks=False) or sender.name.startswith("."):
                    continue
                with os.scandir(sender.path) as files:
                    for entry in files:
                        if entry.name.startswith(".") or entry.name.endswith(_HALF):
                            continue
                        if not entry.is_file(follow_symlinks=False):
                            continue
                        count += 1
                        if count > _LOOKED_AT:
                            return
                        yield sender.name, entry

    def read(self, found: Found, most: int) -> bytes | None:
        """The content; None when the file has changed since. At most one byte more than `most`."""
        descriptor = os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(most + 1)
            status = os.fstat(file.fileno())
        if status.st_mtime_ns != found.changed_ns or status.st_size != found.size:
            return None
        return content

    def finish(self, found: Found, good: bool, content: bytes, report: dict[str, Any]) -> Path:
        """Move it with its report beside; both appear whole. What is in `done` already keeps its name."""
        folder = self.root / ("done" if good else "failed") / found.credential
        for each in (folder.parent, folder):
            each.mkdir(exist_ok=True)  # never the root: a folder that is away comes back by itself
        target, number = folder / found.path.name, 1
        while target.exists():
            target, number = folder / f"{found.path.name}.{number}", number + 1
        whole = {"file": found.path.name, "sha256": hashlib.sha256(content).hexdigest(), **report}
        draft = folder / f".{target.name}.report"
        with draft.open("w") as file:
            json.dump(whole, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / f"{target.name}.report.json")
        found.path.replace(target)
        self._seen.pop(found.path, None)
        for changed in (folder, found.path.parent):
            _sync(changed)
        return target


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def report_of(outcomes: Sequence[tuple[str, str]], error: str = "") -> dict[str, Any]:
    """Counts, and of the dead letters the first hundred with their place (1 = the first reading of the file)."""
    counts = {
        name: sum(1 for outcome, _ in outcomes if outcome == name) for name in ("stored", "duplicate", "dead_letter")
    }
    letters = [{"reading": n, "reason": why} for n, (what, why) in enumerate(outcomes, 1) if what == "dead_letter"]
    return {"readings": len(outcomes), **counts, "dead_letters": letters[:100], **({"error": error} if error else {})}
