"""A gateway whose peers are away when it starts: it runs, takes readings when it knows its devices, and goes on when
they are back; what is wrong by configuration still ends it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.fabric import CHAINCODE, describe, native
from support.http_device import free_port
from support.pilot import answer

from flexrelay.founding import private_collections
from flexrelay.network import Network

pytestmark = pytest.mark.timeout(1200)
PATIENCE_S = 300.0
ORGS = ("dso",)
PEER = "peer0.dso"
TOKEN = "a-token-of-the-meter"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    collections = {name: {"orgs": list(members)} for name, members in private_collections(ORGS).items()}
    contract = {"name": CHAINCODE, "policy": {"orgs": list(ORGS), "required": 1}, "collections": collections}
    with native(tmp_path_factory.mktemp("late") / "net", describe(ORGS, contracts=[contract])) as made:
        yield made


@pytest.fixture(scope="module")
def founded(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose gateway has a device on HTTP."""
    folder = tmp_path_factory.mktemp("site") / "dso"
    answer("init", folder, "--network", "pilot", "--org", "dso", "--profile", f"dso={network.profile('dso')}")
    answer("actor", "add", folder, "--org", "dso", "--label", "owner", "--role", "aggregator")
    device = ("device", "add", folder, "--org", "dso", "--controller", "owner", "--name", "m1", "--kind", "meter")
    answer(*device, "--unsigned", "--credential", "http:meter0")
    (folder / "tokens").write_text(f"meter0:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    return folder


@pytest.fixture
def site(founded: Path, tmp_path: Path) -> Site:
    return Site.copied(founded, tmp_path / "dso")


class Site:
    """A copy of the folder, with ports of its own."""

    def __init__(self, folder: Path, devices: int, operators: int) -> None:
        self.folder = folder
        self.devices = f"http://127.0.0.1:{devices}"
        self.operators = f"http://127.0.0.1:{operators}"
        self._port = operators
        self._sent = 0

    @classmethod
    def copied(cls, founded: Path, folder: Path) -> Site:
        shutil.copytree(founded, folder)
        made = cls(folder, free_port(), free_port())
        with (folder / "flexrelay.toml").open("a") as file:
            file.write(
                f'\n[gateways.adapters.push]\ntype = "http"\nport = {made.devices.rpartition(":")[2]}\n'
                'tokens_file = "tokens"\n[gateways.adapters.push.codec]\nkind = "json"\n'
                'observed_at = { pointer = "/t", form = "ms" }\n'
                '[gateways.adapters.push.codec.registers]\nimport_j = { pointer = "/e", unit = "J" }\n'
            )
        return made

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        program = Path(sys.executable).with_name("flexrelay")
        command = [program, "run", self.folder, "--ledger", "fabric", "--http-port", str(self._port), "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    def ready(self) -> httpx.Response:
        return httpx.get(f"{self.operators}/readyz", timeout=60)

    def told(self) -> str:
        """What /readyz says is wrong with the ledger, "" when nothing is."""
        found = self.ready().json().get("failing", [])
        return next((str(item["detail"]) for item in found if item["name"] == "ledger"), "")

    def send(self) -> dict[str, Any]:
        self._sent += 1
        reading = {"t": time.time_ns() // 1_000_000, "e": 1_000 * self._sent}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answered = httpx.post(f"{self.devices}/readings", content=json.dumps(reading), headers=headers, timeout=60)
        return {"status": answered.status_code, **answered.json()}

    def shown(self) -> str:
        """The device's status, by a command beside the gateway."""
        return str(answer("device", "show", self.folder, "m1")["status"])

    def change(self, old: str, new: str) -> None:
        """In a copy of the profile of its own."""
        configuration = self.folder / "flexrelay.toml"
        text = configuration.read_text()
        (place,) = [line.split('"')[1] for line in text.splitlines() if ".toml" in line]
        profile = Path(place) if Path(place).is_absolute() else self.folder / place
        told = profile.read_text()
        for path in (line.split('"')[1] for line in told.splitlines() if ".pem" in line or ".key" in line):
            told = told.replace(f'"{path}"', f'"{(profile.parent / path).resolve()}"')
        assert old in told
        (self.folder / "changed.toml").write_text(told.replace(old, new))
        configuration.write_text(text.replace(place, str(self.folder / "changed.toml")))


def until(check: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    while True:
        try:
            if check():
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, process.communicate()
        assert time.monotonic() - began < PATIENCE_S, "it did not come in time"
        time.sleep(0.1)


@contextmanager
def away(network: Network) -> Iterator[None]:
    """The only peer is dead for the block."""
    network.kill(PEER)
    try:
        yield
    finally:
        if network.pid(PEER) is None:
            network.start(PEER)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(exit code, what was said) after SIGTERM."""
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said


def test_readings_are_taken_while_no_peer_answers(network: Network, site: Site) -> None:
    endpoint = network.folder.profile("market", "dso").read_text().partition('endpoint = "')[2].partition('"')[0]
    with away(network), site.running() as process:
        assert process.stdout is not None
        up = json.loads(process.stdout.readline())
        assert up["organisations"] == ["dso"]
        until(lambda: site.send()["status"] == 200, process)
        assert httpx.get(f"{site.operators}/healthz", timeout=60).status_code == 200
        assert site.ready().status_code == 503
        until(lambda: endpoint in site.told(), process)
        assert site.shown() == "active", "also while no peer answers"
        network.start(PEER)
        until(lambda: site.ready().status_code == 200, process)
        assert site.send()["outcome"] == "stored"
        assert site.shown() == "active"
        code, said = ended(process)
        assert code == 0, said
    assert "has answered dso's gateway" in said


def test_a_first_start_waits(network: Network, site: Site) -> None:
    """Nothing is known of the network: its devices cannot be verified, so none is listened to."""
    (site.folder / "network.json").unlink()
    with away(network), site.running() as process:
        until(lambda: "no peer of the profile answers" in site.told(), process)
        assert httpx.get(f"{site.operators}/healthz", timeout=60).status_code == 200
        with pytest.raises(httpx.ConnectError):
            site.send()
        network.start(PEER)
        until(lambda: site.ready().status_code == 200, process)
        until(lambda: site.send().get("outcome") == "stored", process)
        code, said = ended(process)
        assert code == 0, said


def test_a_first_start_that_waits_is_ended_in_order(network: Network, site: Site) -> None:
    (site.folder / "network.json").unlink()
    with away(network), site.running() as process:
        until(lambda: site.told() != "", process)
        code, said = ended(process)
        assert code == 0, said


def test_what_is_wrong_ends_it_also_when_it_shows_late(network: Network, site: Site) -> None:
    site.change('channel = "market"', 'channel = "nowhere"')
    with away(network), site.running() as process:
        until(lambda: "no peer of the profile answers" in site.told(), process)
        network.start(PEER)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 4 and "'nowhere'" in said, said


def test_a_wrong_certificate_ends_the_start(network: Network, site: Site) -> None:
    profile = network.folder.profile("market", "dso")
    place = {name: re.search(rf'^{name} = "(.*)"', profile.read_text(), re.M) for name in ("tls_ca", "ca")}
    tls, signing = ((profile.parent / found[1]).resolve() for found in place.values() if found)
    site.change(f'tls_ca = "{tls}"', f'tls_ca = "{signing}"')
    with site.running() as process:
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2 and "tls_ca" in said, said
