"""The folder on disk: which files are whole, and where they go when they are done. Blocking; run in a thread."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

log = logging.getLogger(__name__)

_HALF: Final = (".tmp", ".part", ".partial", ".filepart", ".crdownload", "~")
_LOOKED_AT: Final = 10_000
"""Files of one sender that one look remembers; the others are seen when these are gone."""
_NAME_BYTES: Final = 200
"""Of a file's own name in the names that are made of it: a file system takes 255."""


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
        self._silent: set[Path] = set()
        """What was complained about, while it is there."""

    def look(self) -> list[Found]:
        """Whole files, oldest first. A file that still changes, or is named like one under way, is left. Raises
        OSError when the folder is not there."""
        now, seen, whole = time.monotonic(), {}, []
        self._silent = {path for path in self._silent if os.path.lexists(path)}
        for credential, entry in self._entries():
            path = Path(entry.path)
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # its sender took it back
            except OSError as error:
                self.leave(path, error)
                continue
            mark = (status.st_ino, status.st_size, status.st_mtime_ns)
            known, since = self._seen.get(path, (None, now))
            since = since if known == mark else now
            seen[path] = (mark, since)
            if now - since >= self._settle_s and known == mark:
                whole.append(Found(credential, path, status.st_size, status.st_mtime_ns))
        self._seen = seen
        return sorted(whole, key=lambda found: (found.changed_ns, found.path.name))

    def _entries(self) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
        with os.scandir(self.root / "in") as folders:
            senders = list(filter(_is_sender, folders))
        for sender in senders:
            try:
                with os.scandir(sender.path) as files:
                    found = list(islice(filter(_is_file, files), _LOOKED_AT))
            except OSError as error:
                self.leave(Path(sender.path), error)
                continue
            for entry in found:
                yield sender.name, entry

    def leave(self, path: Path, error: OSError) -> None:
        """One file or sender cannot be read or moved; it is tried again, and the others go on. Raises OSError when the
        whole folder is away."""
        (self.root / "in").stat()
        if path not in self._silent:
            self._silent.add(path)
            log.warning("%s is left where it is: %s", path, error)

    def read(self, found: Found, most: int) -> bytes | None:
        """The content; None when the file has changed since. At most one byte more than `most`."""
        descriptor = os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(most + 1)
            status = os.fstat(file.fileno())
        if status.st_mtime_ns != found.changed_ns or status.st_size != found.size:
            return None
        return content

    def taken_at(self, found: Found, now_ms: int) -> int:
        """When the file was taken for the first time: `now_ms`, unless something came between its readings and its move
        (a kill, a full disk). It is on disk when this returns."""
        note = self._note(found)
        mark = [found.path.name, found.size, found.changed_ns]
        try:
            *known, at = json.loads(note.read_bytes())
            if known == mark and type(at) is int:
                return at
        except (FileNotFoundError, ValueError, TypeError):
            pass
        self._place("done", found)
        _write(note, [*mark, now_ms])
        return now_ms

    def finish(self, found: Found, good: bool, content: bytes, report: dict[str, Any]) -> Path:
        """Move it with its report beside; both appear whole. What is in `done` already keeps its name."""
        folder = self._place("done" if good else "failed", found)
        name = _short(found.path.name)
        target, number = folder / name, 1
        while target.exists():
            target, number = folder / f"{name}.{number}", number + 1
        whole = {"file": found.path.name, "sha256": hashlib.sha256(content).hexdigest(), **report}
        _write(folder / f"{target.name}.report.json", whole)
        found.path.replace(target)
        self._seen.pop(found.path, None)
        for changed in (folder, found.path.parent):
            _sync(changed)
        self._note(found).unlink(missing_ok=True)
        return target

    def _place(self, kind: str, found: Found) -> Path:
        folder = self.root / kind / found.credential
        for each in (folder.parent, folder):
            each.mkdir(exist_ok=True)  # never the root: a folder that is away comes back by itself
        return folder

    def _note(self, found: Found) -> Path:
        return self.root / "done" / found.credential / f".{_short(found.path.name)}.taken"


def _is_sender(entry: "os.DirEntry[str]") -> bool:
    """Whether its name can be a credential."""
    return not entry.name.startswith(".") and _is_text(entry.name) and entry.is_dir(follow_symlinks=False)


def _is_text(name: str) -> bool:
    try:
        os.fsencode(name).decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Whether it is one that may be taken."""
    return not entry.name.startswith(".") and not entry.name.endswith(_HALF) and entry.is_file(follow_symlinks=False)


def _short(name: str) -> str:
    return os.fsdecode(os.fsencode(name)[:_NAME_BYTES])


def _write(path: Path, value: Any) -> None:
    """JSON that appears whole."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w") as file:
        json.dump(value, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


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
