"""A native network on this machine: bring it to its description, look at it, change it, end it."""

import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from flexrelay.network import build, channels, health, lifecycle, render, snapshots
from flexrelay.network.build import Binaries
from flexrelay.network.changes import Command, check
from flexrelay.network.commands import PeerCommands
from flexrelay.network.errors import NetworkError
from flexrelay.network.folder import Folder, State
from flexrelay.network.genesis import HOST
from flexrelay.network.material import Material
from flexrelay.network.plan import Kind, Plan, Process, processes_of
from flexrelay.network.ports import answers, choose, is_free
from flexrelay.network.processes import Processes, Program, Running
from flexrelay.network.profiles import write_gateway_profile, write_profiles
from flexrelay.network.render import Target
from flexrelay.network.spec import Spec, parse
from flexrelay.network.waiting import until

Progress = Callable[[str], None]

BEHIND: Final = 100
"""Blocks that a process may lack: one that has just come back, or is slow. One with more may have come to a stand."""

_READY_S: Final = 120.0
_BEGUN_S: Final = 5.0
"""Within it a process that was started is seen; later one that was never seen has ended, too."""
_FREE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """One process. `pid` None: it does not run, or is a container. `heights`: channel → blocks, where an orderer or
    peer answers. `behind`: blocks that another one has more, on the channel where it misses most."""

    name: str
    kind: Kind
    org: str
    pid: int | None
    address: str
    operations: str
    healthy: bool
    heights: dict[str, int]
    log: str
    behind: int = 0

    @property
    def good(self) -> bool:
        """Whether it works and keeps up with the others."""
        return self.healthy and self.behind <= BEHIND


class Network:
    """The network of a description in a folder.

    Every method may be repeated after whatever interrupted it: what exists is used, what misses is made. `binaries` are
    built when they are needed and not given.
    """

    def __init__(
        self, spec: Spec, folder: Path, binaries: Binaries | None = None, progress: Progress | None = None
    ) -> None:
        self.spec = spec
        self.folder = Folder(folder)
        self._given = binaries
        self._say = progress or (lambda text: None)
        self._state: State | None = None

    @classmethod
    def opened(cls, folder: Path) -> "Network":
        """The network that is in a folder, as it was described last. Raises NetworkError when there is none."""
        state = _existing(Folder(folder))
        return cls(parse(state.spec, str(folder)), folder)

    def up(self, command: Command = "up", *, start_contracts: bool = True) -> None:
        """Bring the network to its description; what runs already goes on. Raises NetworkError.

        `command` says what may be changed on a network that has been up: nothing by "up", see `changes`. Without
        `start_contracts` definitions are committed and the contracts' processes are left to the caller, whose
        configurations are `contracts/<contract>_<version>.<organisation>.toml`.
        """
        with self.folder.locked():
            self._remember(command)
            plan = self.plan
            if self.state.containers:
                raise NetworkError(
                    f"{self.folder.root} was rendered for containers: start those, then `flexrelay network join`"
                )
            self._say("certificates and first blocks")
            channels.write_first_blocks(plan)
            self._say("orderers, peers and contracts")
            programs = plan.programs()  # all of them: this writes the contracts' configurations too
            mine = [program for program in programs if start_contracts or not program.stamp]
            self._start(mine)
            self._define(plan)
            if start_contracts:
                self._settle(programs)
            self._finish(plan)

    def render(self, target: Target, chaincode_image: str) -> Path:
        """Make the folder of a network for containers and the file that starts them; nothing is started. The file.

        Again after a changed description it is the first half of each day-2 command; `join` is the second. Raises
        NetworkError for a name that cannot be a host's.
        """
        render.check_names(processes_of(self.spec))
        with self.folder.locked():
            self._remember("any", containers=True)
            plan = self.plan
            self._say("certificates, first blocks, packages")
            channels.write_first_blocks(plan)
            write_profiles(self.folder, self.spec, plan.materials, plan.hosts)
            return render.render(plan, target, chaincode_image)

    def join(self) -> None:
        """Bring channels and contracts up on containers that run and publish their ports on this host's loopback."""
        with self.folder.locked():
            self._remember("any", containers=True)
            for process in processes_of(self.spec):
                if process.kind != "contract" and not all(answers(port) for _, port in self._ports_of(process.name)):
                    raise NetworkError(
                        f"{process.name} does not answer on {HOST}, ports "
                        f"{', '.join(str(port) for _, port in self._ports_of(process.name))}: start the containers "
                        "(docker compose up -d), or forward these ports from the cluster (kubectl port-forward)"
                    )
            self._define(self.plan)
            self._finish(self.plan)

    def down(self, *, purge: bool = False) -> list[str]:
        """End every process of the network; with `purge` remove the folder too. The names of those that ran."""
        if not self.folder.root.is_dir():
            return []
        with self.folder.locked():
            state = self.folder.read()
            ended = Processes(state.id, self.folder.logs).stop() if state is not None else []
            if purge:
                self.folder.remove()
                self._forget()
            return ended

    def status(self) -> list[ProcessStatus]:
        """Every process that the description asks for."""
        running = self.processes.running()
        found = [self._status(process, running) for process in processes_of(self.spec)]
        highest: dict[str, int] = {}
        for item in found:
            for channel, height in item.heights.items():
                highest[channel] = max(height, highest.get(channel, 0))
        return [replace(item, behind=_behind(item.heights, highest)) for item in found]

    def backup(self, peer: str, to: Path) -> dict[str, int]:
        """Write a peer's snapshots to a new folder; the peer goes on. Channel → last block that is in it."""
        with self.folder.locked():
            self._of_processes("backup")
            return snapshots.backup(self.plan, self.peer(peer), to)

    def restore(self, peer: str, source: Path) -> Path | None:
        """Make a peer anew from a backup of its organisation. Where its former data lies now, None when it had none."""
        with self.folder.locked():
            self._of_processes("restore")
            process = self._known(peer)
            commands = self.peer(process.name)
            blocks = snapshots.read_manifest(source, self.spec.name, process.name)
            self.processes.stop([process.name])
            aside = snapshots.set_aside(self.folder.data(process.name) / "data")
            self._start([self.plan.program(process)])
            snapshots.join(self.plan, commands, source, blocks)
            return aside

    def _of_processes(self, command: str) -> None:
        """Raises NetworkError where no network is, and where what nodes keep is in containers."""
        if self.state.containers:
            raise NetworkError(
                f"{self.folder.root} was rendered for containers, whose volumes are out of reach of `{command}`: use "
                "Fabric's own commands in them (`peer snapshot`, `peer channel joinbysnapshot`)"
            )

    # --- what others use

    @property
    def state(self) -> State:
        """Raises NetworkError where no network is."""
        if self._state is None:
            self._state = _existing(self.folder)
        return self._state

    @property
    def processes(self) -> Processes:
        return Processes(self.state.id, self.folder.logs)

    @cached_property
    def binaries(self) -> Binaries:
        return self._given or build.ensure(self.spec.fabric)

    @cached_property
    def plan(self) -> Plan:
        names = self.state.containers
        return Plan(self.spec, self.folder, self.state.ports, lambda: self.binaries, names=names)

    @property
    def materials(self) -> dict[str, Material]:
        """Organisation → its certificates and keys."""
        return self.plan.materials

    def enrol(self, org: str, name: str, key: str | ec.EllipticCurvePublicKey) -> bytes:
        """A client certificate (PEM) of the organisation for a P-256 public key that is held elsewhere."""
        self.spec.organisation(org)
        return self.materials[org].enrol(name, key)

    def gateway_profile(self, org: str, name: str, key: str | ec.EllipticCurvePublicKey) -> Path:
        """The connection profile, on the first channel, of a gateway whose P-256 key is held elsewhere (a wallet)."""
        certificate = self.enrol(org, name, key)
        return write_gateway_profile(self.folder, self.spec, self.materials, self.plan.hosts, org, name, certificate)

    def profile(self, org: str, channel: str | None = None) -> Path:
        """The connection profile of an organisation on a channel, the first without."""
        return self.folder.profile(channel or self.spec.channels[0].name, org)

    def peer(self, name: str) -> PeerCommands:
        """Fabric's commands against a peer, e.g. "peer0.dso"."""
        return self.plan.peer(name)

    # --- one process by name, for tests of faults: "orderer0", "peer0.dso", "flexrelay.dso"

    def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        known = self._signalled(name, signal.SIGKILL)
        until(lambda: known not in self.processes.running(), f"{known} is not gone", _READY_S)

    def stop(self, name: str) -> None:
        """SIGSTOP: it hangs, its sockets stay open."""
        self._signalled(name, signal.SIGSTOP)

    def cont(self, name: str) -> None:
        """SIGCONT."""
        self._signalled(name, signal.SIGCONT)

    def start(self, name: str) -> None:
        """Start one process that does not run, and wait until it listens."""
        self._start([self.plan.program(self._known(name))])

    def restart(self, name: str) -> None:
        """End it in order, and start it again."""
        self.processes.stop([self._known(name).name])
        self.start(name)

    def pid(self, name: str) -> int | None:
        """The process' pid, None when it does not run."""
        found = self.processes.running().get(self._known(name).name)
        return found.pids[0] if found else None

    def _known(self, name: str) -> Process:
        """A process by its name; a contract's also without its version."""
        versions = {f"{contract.name}.": f"{contract.label}." for contract in self.spec.contracts}
        for process in processes_of(self.spec):
            short = [name.replace(plain, full, 1) for plain, full in versions.items() if name.startswith(plain)]
            if process.name in (name, *short):
                return process
        raise NetworkError(f"the network has no process {name}")

    def _signalled(self, name: str, number: signal.Signals) -> str:
        known = self._known(name).name
        if not self.processes.signal(known, number):
            raise NetworkError(f"{known} does not run")
        return known

    # --- steps of up

    def _define(self, plan: Plan) -> None:
        """Channels and contracts on nodes that run."""
        self._say("channels")
        self._admit(plan)
        channels.join(plan)
        self._say("contracts' definitions")
        lifecycle.install(plan)
        lifecycle.define(plan, self.state.sequences)

    def _finish(self, plan: Plan) -> None:
        self._say("peers see each other and the newest block")
        channels.wait_for_peers(plan)
        write_profiles(self.folder, self.spec, plan.materials, plan.hosts)
        self._write(replace(self.state, founded=True))

    def _remember(self, command: Command, *, containers: bool = False) -> None:
        """Read or make the state, with a port for every purpose, before anything depends on one."""
        had = self.folder.read()
        wanted = self.spec.model_dump(mode="json")
        begun = had is not None and not had.founded and not had.containers
        if had is not None and begun and had.spec != wanted:  # it never was a network: begin anew
            Processes(had.id, self.folder.logs).stop()
            self.folder.empty()
            had = None
        if had is None and command not in ("up", "any"):
            raise NetworkError(f"{self.folder.root} holds no network; `flexrelay network up` makes one")
        if had is not None:
            check(parse(had.spec, str(self.folder.root)), self.spec, command)
        if had is not None and containers and not had.containers:
            raise NetworkError(f"{self.folder.root} holds a network of processes; name another folder for containers")
        state = had or replace(self.folder.new_state(wanted), containers=containers)
        purposes = [purpose for process in processes_of(self.spec) for purpose in process.purposes]
        members = {channel.name: list(self.spec.members(channel)) for channel in self.spec.channels}
        state = replace(
            state,
            spec=wanted,
            ports=choose(purposes, state.ports, self.spec.base_port),
            members=members | state.members,
            sequences=lifecycle.ahead(self.spec, state.sequences),
        )
        self._forget()
        if state != had:
            self._write(state)
        self._state = state

    def _write(self, state: State) -> None:
        self.folder.write(state)
        self._state = state

    def _forget(self) -> None:
        self._state = None
        self.__dict__.pop("plan", None)

    def _admit(self, plan: Plan) -> None:
        """Organisations that came after a channel's first block."""
        for channel in self.spec.channels:
            newcomers = [org for org in self.spec.members(channel) if org not in self.state.members[channel.name]]
            if newcomers:
                channels.admit(plan, channel, newcomers)
                members = {**self.state.members, channel.name: list(self.spec.members(channel))}
                self._write(replace(self.state, members=members))

    def _start(self, programs: Iterable[Program]) -> None:
        """Start those that do not run, and wait until all listen."""
        running = self.processes.running()
        missing = [program for program in programs if program.name not in running]
        for program in missing:
            for purpose, port in self._ports_of(program.name):
                if not _comes_free(port):
                    raise NetworkError(
                        f"port {port} of {purpose} is taken by another program, and certificates and channels name it: "
                        "stop that program, or remove this network (`flexrelay network down --purge`)"
                    )
        for program in missing:
            self.processes.start(program)
        for program in missing:
            self._listening(program.name)

    def _listening(self, name: str) -> None:
        ports = [port for _, port in self._ports_of(name)]
        seen, begun = False, time.monotonic()

        def listens() -> bool:
            nonlocal seen
            if all(answers(port) for port in ports):
                return True
            runs = name in self.processes.running()
            if not runs and (seen or time.monotonic() > begun + _BEGUN_S):
                raise NetworkError(f"{name} has ended; {self.processes.log(name)} ends:\n{self.processes.tail(name)}")
            seen = seen or runs
            return False

        until(listens, f"{name} does not listen, see {self.processes.log(name)},", _READY_S)

    def _settle(self, programs: list[Program]) -> None:
        """End contracts of versions that are over; start those again whose configuration has changed."""
        wanted = {program.name: program for program in programs}
        running = self.processes.running()
        over = [name for name in running if name not in wanted]
        changed = [name for name, found in running.items() if name in wanted and found.digest != wanted[name].digest]
        self.processes.stop([*over, *changed])
        self._start(wanted[name] for name in changed)

    def _ports_of(self, name: str) -> list[tuple[str, int]]:
        process = next(process for process in processes_of(self.spec) if process.name == name)
        return [(purpose, self.state.ports[purpose]) for purpose in process.purposes]

    def _status(self, process: Process, running: dict[str, Running]) -> ProcessStatus:
        ports = self.state.ports
        operations = ports.get(f"{process.name}.{'health' if process.kind == 'contract' else 'operations'}", 0)
        pid = running[process.name].pids[0] if process.name in running else None
        ours = pid is not None or self.state.containers
        found = health.ask(operations) if ours else health.Health(False)
        return ProcessStatus(
            name=process.name,
            kind=process.kind,
            org=process.org,
            pid=pid,
            address=f"{HOST}:{ports[process.name]}" if process.name in ports else "",
            operations=f"{HOST}:{operations}" if operations else "",
            healthy=found.healthy,
            heights=found.heights,
            log=str(self.processes.log(process.name)),
        )


def _behind(heights: Mapping[str, int], highest: Mapping[str, int]) -> int:
    return max((highest[channel] - height for channel, height in heights.items()), default=0)


def _comes_free(port: int) -> bool:
    """A process that was killed is gone from the list a moment before its sockets are."""
    deadline = time.monotonic() + _FREE_S
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _existing(folder: Folder) -> State:
    state = folder.read()
    if state is None:
        raise NetworkError(f"{folder.root} holds no network; `flexrelay network up` makes one")
    return state
