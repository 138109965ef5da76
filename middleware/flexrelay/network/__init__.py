"""Fabric networks from one description file: material, processes, channels, contracts.

`load` reads a description, `ensure` builds Fabric's programs, `Network(spec, folder, binaries).up()` does the rest.
"""

from flexrelay.network.build import Binaries, ensure
from flexrelay.network.errors import BuildError, CommandFailed, NetworkError, SpecError
from flexrelay.network.network import Network, ProcessStatus
from flexrelay.network.spec import Channel, Collection, Contract, Organisation, Policy, Spec, load, parse

__all__ = [
    "Binaries",
    "BuildError",
    "Channel",
    "Collection",
    "CommandFailed",
    "Contract",
    "Network",
    "NetworkError",
    "Organisation",
    "Policy",
    "ProcessStatus",
    "Spec",
    "SpecError",
    "ensure",
    "load",
    "parse",
]
