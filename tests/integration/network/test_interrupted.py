"""`up` killed at any moment, nodes killed, ports taken: the next `up` goes on, and nobody else is harmed."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fabric import PATIENCE_S, describe, healthy, level, native

from flexrelay.network import Network, NetworkError, SpecError, ensure, parse
from flexrelay.network.processes import Processes, Program
from flexrelay.network.waiting import until

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    made = Network(describe(("dso", "agga")), tmp_path / "network", ensure("3.1"))
    yield made
    made.down()


def test_a_start_killed_at_any_moment_can_be_repeated(network: Network) -> None:
    folder = network.folder.root
    moments = random.Random(7)
    began = time.monotonic()
    network.up()
    whole = time.monotonic() - began
    for turn in range(4):
        network.down(purge=turn % 2 == 0)  # a start from nothing, and one on what is there
        killed(network, "up", 0.5 + moments.random() * whole)
        network.up()
        status = healthy(network)
        level(network)
        assert sorted(network.processes.running()) == sorted(item.name for item in status)
    network.down(purge=True)
    assert not folder.exists()


def test_a_change_killed_at_any_moment_can_be_repeated(network: Network) -> None:
    moments = random.Random(8)
    network.up()
    for turn in range(2):
        network.down(purge=True)
        network.up()
        wider = Network(describe(("dso", "agga", "aggb")), network.folder.root, network.binaries)
        killed(wider, "add-org", 1.0 + turn + moments.random() * 2)
        wider.up("add-org")
        healthy(wider)
        level(wider)
        definition = wider.peer("peer0.aggb").committed("market", "flexrelay")
        assert definition is not None
        assert definition["approvals"] == {"dso": True, "agga": True, "aggb": True}


def killed(network: Network, command: str, after_s: float) -> None:
    """Begin to bring the network to its description in another process, and kill that with SIGKILL."""
    description = network.folder.root.with_suffix(".json")
    description.write_text(network.spec.model_dump_json())
    code = (
        "import json; from pathlib import Path; from flexrelay.network import Network, parse;"
        f"spec = parse(json.loads(Path({str(description)!r}).read_text()), 'spec');"
        f"Network(spec, Path({str(network.folder.root)!r})).up({command!r})"
    )
    started = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    time.sleep(after_s)
    started.send_signal(signal.SIGKILL)
    started.wait()


def test_what_was_killed_is_started_and_what_runs_is_left(network: Network) -> None:
    network.up()
    pids = {item.name: item.pid for item in network.status()}
    network.kill("peer0.agga")
    network.kill("flexrelay.dso")

    def ill() -> list[str]:
        return [item.name for item in network.status() if not item.healthy]

    until(lambda: ill() == ["peer0.agga", "flexrelay_1.dso"], "not those that were killed", PATIENCE_S)
    network.up()
    after = {item.name: item.pid for item in network.status()}
    changed = [name for name in pids if pids[name] != after[name]]
    assert changed == ["peer0.agga", "flexrelay_1.dso"]
    healthy(network)


def test_a_hanging_process_is_told_and_ended(network: Network) -> None:
    network.up()
    network.stop("peer0.dso")
    hanging = {item.name: item for item in network.status()}["peer0.dso"]
    assert hanging.pid is not None
    assert not hanging.healthy
    network.cont("peer0.dso")
    healthy(network)
    network.stop("peer0.dso")
    assert "peer0.dso" in network.down()
    assert network.processes.running() == {}


def test_a_taken_port_is_told_before_anything_starts(network: Network) -> None:
    network.up()
    network.down()
    port = network.state.ports["peer0.dso"]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(NetworkError, match=rf"port {port} of peer0\.dso is taken by another program"):
            network.up()
        assert network.processes.running() == {}
    network.up()


def test_networks_do_not_touch_each_other(tmp_path: Path, network: Network) -> None:
    network.up()
    with native(tmp_path / "other", describe(("dso",))) as other:
        assert not set(other.state.ports.values()) & set(network.state.ports.values())
    healthy(network)


def test_a_first_description_that_failed_may_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = describe(("dso",), contracts=[{"name": "flexrelay", "module": "no.such.module"}])
    network = Network(wrong, tmp_path / "network", ensure("3.1"))
    with pytest.raises(NetworkError, match=r"flexrelay_1\.dso has ended"):
        network.up()
    plain = Processes.start

    def over_before_it_is_seen(self: Processes, program: Program) -> None:
        plain(self, program)
        if program.name == "flexrelay_1.dso":
            until(lambda: program.name not in self.running(), "it goes on", PATIENCE_S)

    with monkeypatch.context() as patched, pytest.raises(NetworkError, match=r"flexrelay_1\.dso has ended"):
        patched.setattr(Processes, "start", over_before_it_is_seen)
        network.up()
    right = Network(describe(("dso",)), tmp_path / "network", ensure("3.1"))
    try:
        right.up()
        healthy(right)
        with pytest.raises(SpecError, match="organisations: agga is new"):
            Network(describe(("dso", "agga")), tmp_path / "network").up()
    finally:
        right.down(purge=True)


def test_a_folder_without_a_network_is_not_purged(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    network = Network(parse({**describe().model_dump(mode="json")}, "t"), tmp_path)
    with pytest.raises(NetworkError, match="is not empty and holds no network"):
        network.down(purge=True)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
