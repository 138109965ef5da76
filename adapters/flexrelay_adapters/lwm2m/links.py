"""The CoRE link format (RFC 6690) of a registration: which object instances a device has."""

import re
from typing import Final

from flexrelay_adapters.lwm2m.formats import FormatError, Path, parse_path

MAX_LINKS: Final = 1_000
_LINK: Final = re.compile(
    r'\s*<([^<>\s]{0,200})>((?:\s*;\s*[^,;"=]{1,60}(?:=(?:"[^"]{0,200}"|[^,;"]{0,200}))?)*)\s*(?:,|$)'
)


def parse_links(payload: bytes) -> tuple[Path, ...]:
    """Objects and object instances, sorted; a root path ("rt="oma.lwm2m"") is taken off. Raises FormatError."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        raise FormatError("bad_links", "the object list is no UTF-8") from None
    at, root = 0, ""
    targets: list[str] = []
    while at < len(text):
        found = _LINK.match(text, at)
        if found is None:
            raise FormatError("bad_links", f"the object list cannot be read at {at}")
        if len(targets) >= MAX_LINKS:
            raise FormatError("bad_links", f"more than {MAX_LINKS} objects")
        target, attributes = found.groups()
        if "oma.lwm2m" in attributes:
            root = target.rstrip("/")
        targets.append(target)
        at = found.end()
    paths = set()
    for target in targets:
        if root and target.startswith(root + "/"):
            target = target[len(root) :]
        if target in ("", "/", root):
            continue
        try:
            path = parse_path(target)
        except FormatError:
            continue  # another application's resource on the same device
        if 1 <= len(path) <= 2:
            paths.add(path)
    return tuple(sorted(paths))


def links_text(paths: tuple[Path, ...]) -> str:
    """The same as link format."""
    return ",".join(f"</{'/'.join(map(str, path))}>" for path in paths)
