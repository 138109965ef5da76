"""A native network on this machine: bring it to its description, look at it, end it."""

import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from flexrelay.network import contracts, nodes
from flexrelay.network.build import Binaries
from flexrelay.network.commands import OrdererCommands, PeerCommands, patiently
from flexrelay.network.errors import NetworkError, SpecError
from flexrelay.network.folder import Folder, State
from flexrelay.network.genesis import HOST, Hosts, write_genesis
from flexrelay.network.material import Material
from flexrelay.network.ports import answers, choose, is_free
from flexrelay.network.processes import Processes, Program
from flexrelay.network.profiles import write_profiles
from flexrelay.network.spec import Channel, Contract, Spec, parse

T = TypeVar("T")
Progress = Callable[[str], None]

_READY_S: Final = 30.0
_POLL_S: Final = 0.02
_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process: `kind` is orderer, peer or contract; pid None when it does not run."""

    name: str
    kind: str
    pid: int | None
    address: str
    operations: str
    log: str


class Network:
    """The network of a description in a folder. Use `up`, `down`, `status`; the rest is for tests and day-2 work.

    Every method may be repeated after whatever interrupted it: what exists is used, what misses is made.
    """

    def __init__(self, spec: Spec, folder: Path, binaries: Binaries, progress: Progress | None = None) -> None:
        self.spec = spec
        self.folder = Folder(folder)
        self.binaries = binaries
        self._say = progress or (lambda text: None)
        self._state: State | None = None

    def up(self, *, start_contracts: bool = True) -> None:
        """Bring the network up; what runs already goes on. Raises NetworkError.

        Without `start_contracts` the definitions are committed and the contracts' processes are left to the caller,
        who finds their configurations in `contracts/<contract>.<organisation>.toml`.
        """
        with self.folder.locked():
            self._remember()
            self._say("certificates and first blocks")
            self._make()
            self._say("orderers, peers and contracts")
            self._start([*self._node_programs(), *(self._contract_programs() if start_contracts else [])])
            self._say("channels")
            self._join()
            self._say("contracts' definitions")
            self._define()
            write_profiles(self.folder, self.spec, self.materials, self.hosts)

    def down(self, *, purge: bool = False) -> list[str]:
        """End every process of the network; with `purge` remove the folder too. The names of those that ran."""
        if not self.folder.root.is_dir():
            return []
        with self.folder.locked():
            state = self.folder.read()
            ended = self.processes.stop() if state is not None else []
            if purge:
                self.folder.remove()
                self._state = None
            return ended

    def status(self) -> list[ProcessStatus]:
        """Every process that the description asks for."""
        running = self.processes.running()
        ports = self.state.ports
        found = []
        for kind, name, second in self._expected():
            pids = running.get(name)
            port, operations = ports.get(name), ports.get(f"{name}{second}")
            found.append(
                ProcessStatus(
                    name,
                    kind,
                    pids[0] if pids else None,
                    f"{HOST}:{port}" if port else "",
                    f"{HOST}:{operations}" if operations else "",
                    str(self.processes.log(name)),
                )
            )
        return found

    # --- what others read

    @property
    def state(self) -> State:
        """Raises NetworkError where no network is."""
        if self._state is None:
            self._state = self.folder.read()
        if self._state is None:
            raise NetworkError(f"{self.folder.root} holds no network; `flexrelay network up` makes one")
        return self._state

    @property
    def processes(self) -> Processes:
        return Processes(self.state.id, self.folder.logs)

    @property
    def materials(self) -> dict[str, Material]:
        """Organisation → its certificates and keys."""
        orgs = [*(organisation.name for organisation in self.spec.organisations), self.spec.orderer_organisation]
        return {org: Material(self.folder.material, org) for org in orgs}

    @property
    def hosts(self) -> Hosts:
        return Hosts(self.state.ports)

    def enrol(self, org: str, name: str, key: str | ec.EllipticCurvePublicKey) -> bytes:
        """A client certificate (PEM) of the organisation for a P-256 public key that is held elsewhere."""
        self.spec.organisation(org)
        return self.materials[org].enrol(name, key)

    def profile(self, org: str, channel: str | None = None) -> Path:
        """The connection profile of an organisation on a channel, the first without."""
        return self.folder.profile(channel or self.spec.channels[0].name, org)

    def peer(self, name: str) -> PeerCommands:
        """Fabric's commands against a peer, e.g. "peer0.dso"."""
        material = self.materials[name.partition(".")[2]]
        return PeerCommands(self.binaries, material, name, self.state.ports[name])

    # --- one process, for tests of faults

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        self._signalled(name, signal.SIGKILL)
        deadline = time.monotonic() + _READY_S
        while name in self.processes.running():
            if time.monotonic() > deadline:
                raise NetworkError(f"{name} does not go")
            time.sleep(_POLL_S)

    def stop(self, name: str) -> None:
        """SIGSTOP: it hangs, its sockets stay open."""
        self._signalled(name, signal.SIGSTOP)

    def cont(self, name: str) -> None:
        self._signalled(name, signal.SIGCONT)

    def start(self, name: str) -> None:
        """Start one process that does not run, and wait until it listens."""
        programs = [program for program in [*self._node_programs(), *self._contract_programs()] if program.name == name]
        if not programs:
            raise NetworkError(f"the network has no process {name}")
        self._start(programs)

    def restart(self, name: str) -> None:
        """End it in order, and start it again."""
        self.processes.stop([name])
        self.start(name)

    def _signalled(self, name: str, number: signal.Signals) -> None:
        if not self.processes.signal(name, number):
            raise NetworkError(f"{name} does not run")

    # --- steps of up

    def _remember(self) -> None:
        """Read or make the state, with a port for every purpose, before anything depends on one."""
        spec = self.spec.model_dump(mode="json")
        had = self.folder.read()
        state = had or self.folder.new_state(spec)
        if had is not None:
            _same(parse(had.spec, str(self.folder.root)), self.spec)
        ports = choose(self._purposes(), state.ports, self.spec.base_port)
        state = replace(state, spec=spec, ports=ports)
        if state != had:
            self.folder.write(state)
        self._state = state

    def _purposes(self) -> list[str]:
        spec = self.spec
        purposes = [name + suffix for name in spec.orderer_names for suffix in nodes.ORDERER_PORTS]
        for organisation in spec.organisations:
            for peer in spec.peer_names(organisation.name):
                purposes += [peer + suffix for suffix in nodes.PEER_PORTS]
        for contract, org in self._running_contracts():
            purposes += [contracts.process_name(contract, org) + suffix for suffix in contracts.PORTS]
        return purposes

    def _running_contracts(self) -> list[tuple[Contract, str]]:
        orgs = [organisation.name for organisation in self.spec.organisations]
        return [(contract, org) for contract in self.spec.contracts for org in orgs if self.spec.runs(contract, org)]

    def _expected(self) -> list[tuple[str, str, str]]:
        """(kind, name, suffix of its operations port) of every process."""
        spec = self.spec
        found = [("orderer", name, ".operations") for name in spec.orderer_names]
        for organisation in spec.organisations:
            found += [("peer", name, ".operations") for name in spec.peer_names(organisation.name)]
        found += [("contract", contracts.process_name(*item), ".health") for item in self._running_contracts()]
        return found

    def _make(self) -> None:
        materials = self.materials
        for name in self.spec.orderer_names:
            materials[self.spec.orderer_organisation].identity(name, "orderer")
        for channel in self.spec.channels:
            to = self.folder.genesis(channel.name)
            if not to.is_file():
                write_genesis(self.binaries, self.spec, channel, materials, self.hosts, to)

    def _node_programs(self) -> list[Program]:
        materials, ports, spec = self.materials, self.state.ports, self.spec
        orderers = materials[spec.orderer_organisation]
        programs = [nodes.orderer(self.binaries, self.folder, orderers, name, ports) for name in spec.orderer_names]
        for organisation in spec.organisations:
            peers = spec.peer_names(organisation.name)
            for name in peers:
                others = [other for other in peers if other != name]
                programs.append(
                    nodes.peer(self.binaries, self.folder, materials[organisation.name], name, others, ports)
                )
        return programs

    def _contract_programs(self) -> list[Program]:
        materials, ports = self.materials, self.state.ports
        return [
            contracts.program(self.folder, self.spec, contract, materials[org], ports)
            for contract, org in self._running_contracts()
        ]

    def _start(self, programs: Iterable[Program]) -> None:
        """Start those that do not run, and wait until all listen."""
        running = self.processes.running()
        missing = [program for program in programs if program.name not in running]
        for program in missing:
            for purpose, port in self._ports_of(program.name):
                if not is_free(port):
                    raise NetworkError(
                        f"port {port} of {purpose} is taken by another program, and certificates and channels name it: "
                        f"stop that program, or remove this network (`flexrelay network down --purge`)"
                    )
        for program in missing:
            self.processes.start(program)
        deadline = time.monotonic() + _READY_S
        for program in missing:
            self._listening(program.name, deadline)

    def _listening(self, name: str, deadline: float) -> None:
        seen = False
        while not all(answers(port) for _, port in self._ports_of(name)):
            runs = name in self.processes.running()
            if (seen and not runs) or time.monotonic() > deadline:
                what = "does not listen" if runs else "has ended"
                raise NetworkError(
                    f"{name} {what}; the end of {self.processes.log(name)}:\n{self.processes.tail(name)}"
                )
            seen = seen or runs
            time.sleep(_POLL_S)

    def _ports_of(self, name: str) -> list[tuple[str, int]]:
        own = [name, *(f"{name}.{part}" for part in ("admin", "chaincode", "operations", "health"))]
        return [(purpose, self.state.ports[purpose]) for purpose in own if purpose in self.state.ports]

    def _join(self) -> None:
        materials, ports, spec = self.materials, self.state.ports, self.spec
        orderers = [
            OrdererCommands(self.binaries, materials[spec.orderer_organisation], name, ports[f"{name}.admin"])
            for name in spec.orderer_names
        ]
        work: list[Callable[[], None]] = []
        for channel in spec.channels:
            block = self.folder.genesis(channel.name)
            work += [_joining_orderer(orderer, channel.name, block) for orderer in orderers]
            for org in spec.members(channel):
                work += [_joining_peer(self.peer(name), block) for name in spec.peer_names(org)]
        _at_once(work)

    def _define(self) -> None:
        """Install, approve, commit what is not."""
        installs: list[Callable[[], None]] = []
        for contract, org in self._running_contracts():
            port = self.state.ports[contracts.process_name(contract, org)]
            package = contracts.ensure_package(self.folder, self.materials[org], contract, port)
            installs += [_installing(self.peer(name), package) for name in self.spec.peer_names(org)]
        _at_once(installs)
        pairs = [(channel, contract) for channel in self.spec.channels for contract in self.spec.contracts_of(channel)]
        _at_once([_calling(self._define_one, channel, contract) for channel, contract in pairs])

    def _define_one(self, channel: Channel, contract: Contract) -> None:
        members = self.spec.members(channel)
        first = {org: self.peer(self.spec.peer_names(org)[0]) for org in members}
        definition = patiently(lambda: first[members[0]].committed(channel.name, contract.name))
        sequence = 0 if definition is None else int(definition["sequence"])
        if sequence > contract.sequence:
            raise NetworkError(
                f"contracts.{contract.name}.sequence: channel {channel.name} is at {sequence} already; write that"
            )
        approved = set() if definition is None or sequence < contract.sequence else _approvals(definition)
        options = [*self._orderer_options(), *contracts.definition_options(self.folder, contract, channel.name)]
        _at_once([_calling(self._approve, first[org], contract, options) for org in members if org not in approved])
        if sequence == contract.sequence:
            return
        for org in members:
            options += ["--peerAddresses", first[org].address, "--tlsRootCertFiles", first[org].tls_root]
        patiently(lambda: first[members[0]].run("lifecycle", "chaincode", "commit", *options))

    def _approve(self, peer: PeerCommands, contract: Contract, options: list[str]) -> None:
        package = self.folder.package(contract.label, peer.org)
        named = ["--package-id", contracts.id_of(package, contract)]
        excuse = "attempted to redefine uncommitted sequence"  # with the same content: approved by an earlier try

        def approve() -> None:
            peer.run("lifecycle", "chaincode", "approveformyorg", *options, *named)

        try:
            patiently(approve)
        except NetworkError as error:
            if excuse not in str(error):
                raise

    def _orderer_options(self) -> list[str]:
        name = self.spec.orderer_names[0]
        root = self.materials[self.spec.orderer_organisation].tls_root
        return ["-o", self.hosts.endpoint(name), "--tls", "--cafile", str(root)]


def _same(had: Spec, wanted: Spec) -> None:
    """Raises SpecError naming the first fields in which they differ."""
    old, new = had.model_dump(mode="json"), wanted.model_dump(mode="json")
    fields = [name for name in old if old[name] != new[name]]
    if fields:
        raise SpecError(
            f"{', '.join(fields)}: differs from the network that is in the folder; "
            "change it by a day-2 command (`flexrelay network --help`), or remove it with `down --purge`"
        )


def _approvals(definition: dict[str, Any]) -> set[str]:
    return {org for org, yes in definition.get("approvals", {}).items() if yes}


def _joining_orderer(orderer: OrdererCommands, channel: str, block: Path) -> Callable[[], None]:
    return lambda: patiently(lambda: orderer.join(channel, block))


def _joining_peer(peer: PeerCommands, block: Path) -> Callable[[], None]:
    return lambda: patiently(lambda: peer.join(block))


def _installing(peer: PeerCommands, package: Path) -> Callable[[], None]:
    return lambda: patiently(lambda: peer.install(package))


def _calling(function: Callable[..., None], *arguments: Any) -> Callable[[], None]:
    return lambda: function(*arguments)


def _at_once(work: list[Callable[[], None]]) -> None:
    """Run them a few at a time; the first failure is raised when all have ended."""
    if not work:
        return
    with ThreadPoolExecutor(min(_AT_ONCE, len(work))) as pool:
        for future in [pool.submit(item) for item in work]:
            future.result()
