"""The quality scale of adapters: bronze, silver, gold, platinum, and what each demands (`scale.toml`).

An adapter's package declares its level in `quality.toml`; `violations` compares the declaration with the adapter and
its contract tests, `installed_adapters` tells what is installed.
"""

from flexrelay_sdk.quality.check import violations
from flexrelay_sdk.quality.installed import Installed, installed_adapters, package_of
from flexrelay_sdk.quality.readme import samples
from flexrelay_sdk.quality.scale import Declaration, Level, Rule, read_declaration, rules

__all__ = [
    "Declaration",
    "Installed",
    "Level",
    "Rule",
    "installed_adapters",
    "package_of",
    "read_declaration",
    "rules",
    "samples",
    "violations",
]
