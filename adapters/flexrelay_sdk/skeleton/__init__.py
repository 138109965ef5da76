"""A new adapter's package: small, whole, and passing its own tests, to be changed file by file.

`flexrelay adapter new NAME`, or `python -m flexrelay_sdk.skeleton NAME` where only the base is installed.
"""

import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Final

NEXT: Final = (
    "next, in that folder: pip install CHECKOUT '.[test]' && pytest (CHECKOUT: the folder of flexrelay itself)"
)
"""What to do with a package that was made."""

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
_SUFFIX = ".template"


def generate(name: str, folder: Path | None = None) -> Path:
    """Write the package of an adapter for protocol `name` (`acme-hub`) into `folder`, which must not exist (default:
    ./flexrelay-<name>). Returns the folder. Raises ValueError for a name that cannot be one, FileExistsError."""
    if _NAME.fullmatch(name) is None or len(name) > 40:
        raise ValueError(f"name {name[:60]!r}: use lower-case letters and digits, with single - between them")
    dashed, under = name.replace("_", "-"), name.replace("-", "_")
    if under in _own():  # a gateway could not tell two entry points of one name apart
        raise ValueError(f"name {name!r}: flexrelay has an adapter of that name; call yours after the maker or product")
    words = {
        "@@dashed@@": dashed,
        "@@under@@": under,
        "@@Class@@": "".join(word.capitalize() for word in under.split("_")),
    }
    target = folder if folder is not None else Path(f"flexrelay-{dashed}")
    target.mkdir(parents=True, exist_ok=False)
    for place, source in _sources(files(__package__) / "template", PurePosixPath()):
        path = target / _filled(str(place), words).removesuffix(_SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_filled(source.read_text(), words))
    return target


def _own() -> set[str]:
    """The adapters that come with flexrelay."""
    points = entry_points(group="flexrelay.adapters")
    return {point.name for point in points if point.dist is not None and point.dist.name == "flexrelay"}


def _sources(folder: Traversable, place: PurePosixPath) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _sources(entry, place / entry.name)
        elif entry.name.endswith(_SUFFIX):
            yield place / entry.name, entry


def _filled(text: str, words: dict[str, str]) -> str:
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text
