"""Where a value stands in a document: an RFC 6901 JSON pointer, or the part of JSONPath that names one place.

A document is what `json.loads` makes, or what an adapter builds of its protocol in the same form (a resource tree, a
dict of node ids).
"""

import re
from typing import Annotated, Any, Final, NamedTuple

from pydantic import AfterValidator, Field

MISSING: Final[Any] = object()
"""What `find` gives for a place that is not there."""

_POINTER = re.compile(r"(/([^~/]|~0|~1)*)*")
_STEP = re.compile(
    r"""\.(?P<name>[A-Za-z_][\w-]*)
    |\[(?P<index>\d{1,6})\]
    |\[(?P<quote>['"])(?P<quoted>[^'"\\]*)(?P=quote)\]
    |\[\?\(?@\.(?P<key>[\w-]+)\s*==\s*(?P<mark>['"])(?P<value>[^'"\\]*)(?P=mark)\)?\]""",
    re.VERBOSE | re.ASCII,
)


class Where(NamedTuple):
    """A step of a JSONPath: the first member of a list whose `key` has the text `value`."""

    key: str
    value: str


Step = str | Where
"""A name or an index, as text; or a condition."""


def parse_path(path: str) -> tuple[Step, ...]:
    """`/a/0/b` (a pointer; "" is the whole document) or `$.a[0].b`, `$['a b']`, `$.list[?(@.n=='power')].v`.

    Raises ValueError for anything else: wildcards, slices and recursion name no single place.
    """
    if path.startswith("$"):
        steps: list[Step] = []
        at = 1
        while at < len(path):
            match = _STEP.match(path, at)
            if match is None:
                raise ValueError(
                    f"path {path!r}: {path[at:]!r} names no single place; use .name, [0], [?(@.key=='text')]"
                )
            steps.append(_step(match))
            at = match.end()
        return tuple(steps)
    if _POINTER.fullmatch(path) is None:
        raise ValueError(f"path {path!r} matches neither pattern: JSON pointer (/a/0) or JSONPath ($.a[0])")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:])


def _step(match: re.Match[str]) -> Step:
    if match["key"] is not None:
        return Where(match["key"], match["value"])
    for group in ("name", "index", "quoted"):
        if match[group] is not None:
            return str(match[group])
    raise AssertionError("the pattern has no other step")


def _checked(path: str) -> str:
    parse_path(path)
    return path


Path = Annotated[str, Field(max_length=400), AfterValidator(_checked)]
"""A pointer or JSONPath in a configuration."""


def find(document: Any, steps: tuple[Step, ...]) -> Any:
    """The value at that place, MISSING where there is none. Never raises."""
    if len(steps) == 1 and type(document) is dict and type(steps[0]) is str:
        return document.get(steps[0], MISSING)
    value = document
    for step in steps:
        if type(step) is Where:
            value = _chosen(value, step)
        elif type(value) is dict:
            value = value.get(step, MISSING)
        elif type(value) is list:
            name = str(step)
            index = int(name) if name.isascii() and name.isdigit() and len(name) <= 6 else len(value)
            value = value[index] if index < len(value) else MISSING
        else:
            return MISSING
    return value


def _chosen(value: Any, where: Where) -> Any:
    if type(value) is not list:
        return MISSING
    for item in value:
        if type(item) is dict and item.get(where.key) == where.value:
            return item
    return MISSING
