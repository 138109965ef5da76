"""What a description means on this machine: materials, ports, processes. Nothing here starts or asks anything."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from flexrelay.network import contracts, nodes
from flexrelay.network.build import Binaries
from flexrelay.network.commands import OrdererCommands, PeerCommands
from flexrelay.network.errors import NetworkError
from flexrelay.network.folder import Folder
from flexrelay.network.genesis import HOST, Hosts
from flexrelay.network.material import Material
from flexrelay.network.ports import Ports, answers
from flexrelay.network.processes import Program
from flexrelay.network.spec import Contract, Spec

Kind = Literal["orderer", "peer", "contract"]

_SUFFIXES: Final[dict[Kind, tuple[str, ...]]] = {
    "orderer": nodes.ORDERER_PORTS,
    "peer": nodes.PEER_PORTS,
    "contract": contracts.PORTS,
}


@dataclass(frozen=True, slots=True)
class Process:
    """One that the description asks for. `ports`: purpose → port, its own under its name."""

    name: str
    kind: Kind
    org: str
    purposes: tuple[str, ...]


def processes_of(spec: Spec) -> list[Process]:
    """All of them, in the order in which they start."""
    found = [_process(name, "orderer", spec.orderer_organisation) for name in spec.orderer_names]
    for organisation in spec.organisations:
        found += [_process(name, "peer", organisation.name) for name in spec.peer_names(organisation.name)]
    for contract, org in running_contracts(spec):
        found.append(_process(contracts.process_name(contract, org), "contract", org))
    return found


def running_contracts(spec: Spec) -> list[tuple[Contract, str]]:
    """Every contract with each organisation that runs it."""
    orgs = [organisation.name for organisation in spec.organisations]
    return [(contract, org) for contract in spec.contracts for org in orgs if spec.runs(contract, org)]


class Plan:
    """A description with its folder, ports and programs. `binaries` is asked for Fabric's programs when needed.

    With `names` nodes find each other by name, in containers; their ports are the same ones, and published here.
    """

    def __init__(
        self, spec: Spec, folder: Folder, ports: Ports, binaries: Callable[[], Binaries], *, names: bool = False
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.ports = ports
        self._binaries = binaries
        orgs = [*(organisation.name for organisation in spec.organisations), spec.orderer_organisation]
        self.materials = {org: Material(folder.material, org) for org in orgs}
        self.hosts = Hosts(ports, names)

    @property
    def binaries(self) -> Binaries:
        return self._binaries()

    def programs(self, *, with_contracts: bool = True) -> list[Program]:
        """What to start, in order."""
        return [
            self.program(process) for process in processes_of(self.spec) if with_contracts or process.kind != "contract"
        ]

    def program(self, process: Process) -> Program:
        material = self.materials[process.org]
        if process.kind == "orderer":
            return nodes.orderer(self.binaries, self.folder, material, process.name, self.hosts)
        if process.kind == "peer":
            others = [name for name in self.spec.peer_names(process.org) if name != process.name]
            return nodes.peer(self.binaries, self.folder, material, process.name, others, self.hosts)
        contract = next(
            item for item in self.spec.contracts if contracts.process_name(item, process.org) == process.name
        )
        return contracts.program(self.folder, self.spec, contract, material, self.hosts)

    def peer(self, name: str) -> PeerCommands:
        """Fabric's commands against a peer, e.g. "peer0.dso". Raises NetworkError for an unknown one."""
        org = name.partition(".")[2]
        if org not in self.materials or name not in self.ports:
            raise NetworkError(f"the network has no peer {name}")
        return PeerCommands(self.binaries, self.materials[org], name, self.ports[name])

    def peers(self, org: str) -> list[PeerCommands]:
        return [self.peer(name) for name in self.spec.peer_names(org)]

    def orderers(self) -> list[OrdererCommands]:
        material = self.materials[self.spec.orderer_organisation]
        return [
            OrdererCommands(self.binaries, material, name, self.ports[f"{name}.admin"])
            for name in self.spec.orderer_names
        ]

    def orderer_options(self) -> list[str]:
        """How `peer …` reaches an orderer: the first that listens."""
        names = [name for name in self.spec.orderer_names if answers(self.ports[name])]
        if not names:
            raise NetworkError("no orderer listens; `flexrelay network up` starts what misses")
        root = self.materials[self.spec.orderer_organisation].tls_root
        return ["-o", f"{HOST}:{self.ports[names[0]]}", "--tls", "--cafile", str(root)]


def _process(name: str, kind: Kind, org: str) -> Process:
    return Process(name, kind, org, tuple(f"{name}{suffix}" for suffix in _SUFFIXES[kind]))
