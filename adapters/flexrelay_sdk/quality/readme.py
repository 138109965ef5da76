"""The sample configurations of an adapter's README: what a reader copies must work."""

import re
import tomllib
from importlib.resources.abc import Traversable
from typing import Any

_FENCE = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def samples(folder: Traversable) -> dict[str, dict[str, Any]]:
    """name → section of every [adapters.<name>] in the TOML blocks of README.md. Raises ValueError when there is no
    README.md, no sample, or one that is no TOML."""
    readme = folder / "README.md"
    if not readme.is_file():
        raise ValueError(f"{folder} has no README.md")
    found: dict[str, dict[str, Any]] = {}
    for block in _FENCE.findall(readme.read_text()):
        try:
            document = tomllib.loads(block)
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{readme}: a sample is no TOML: {error}") from None
        sections = list(_sections(document))
        for section in sections:
            for name, values in section.items():
                found[name] = {key: value for key, value in values.items() if key not in ("type", "password_file")}
    if not found:
        raise ValueError(f"{readme} has no sample [adapters.<name>] in a toml block")
    return found


def _sections(document: dict[str, Any]) -> list[dict[str, Any]]:
    """`adapters` on top, or within `gateways` as a gateway's configuration has it (a table, or a list of them)."""
    gateways = document.get("gateways", [])
    holders = (document, *(gateways if isinstance(gateways, list) else [gateways]))
    return [
        holder["adapters"]
        for holder in holders
        if isinstance(holder, dict) and isinstance(holder.get("adapters"), dict)
    ]
