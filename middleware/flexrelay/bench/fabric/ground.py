"""The network of the benchmarks, and the two chaincodes on it that do the same plain put."""

import signal
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

from flexrelay.bench.fabric import gopeers
from flexrelay.network import Network, parse
from flexrelay.network.contracts import process_name
from flexrelay.network.processes import Program

ORG: Final = "dso"
CHANNEL: Final = "bench"
OURS: Final = "plain"
THEIRS: Final = "goput"


def description(contracts: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """One orderer, one organisation with one peer, blocks of 100 ms or 100 transactions, when nothing else is said."""
    return {
        "name": "bench",
        "organisations": [{"name": ORG}],
        "channels": [{"name": CHANNEL, "block": {"timeout_ms": 100, "max_messages": 100}}],
        "contracts": contracts,
        **changes,
    }


@contextmanager
def network(spec: dict[str, Any]) -> Iterator[Network]:
    """The network of a description; it is ended and its folder removed in any case, on SIGTERM too."""
    with _ended_in_order(), tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
        found = Network(parse(spec, "bench"), Path(folder) / "network")
        try:
            found.up(start_contracts=False)
            yield found
        finally:
            found.down(purge=True)


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """SIGTERM (a time limit, say) ends the block as Ctrl-C does: no process is left behind."""

    def leave(number: int, frame: FrameType | None) -> None:
        signal.raise_signal(signal.SIGINT)  # asyncio ends its tasks for this one

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def compared(**changes: Any) -> Iterator[Network]:
    """A network with the plain put twice: `OURS` on our shim, `THEIRS` on the official Go shim."""
    programs = gopeers.build()
    contracts = [
        {"name": OURS, "module": "flexrelay.bench.fabric.plain"},
        {"name": THEIRS, "module": "flexrelay.bench.fabric.plain"},
    ]
    with network(description(contracts, **changes)) as found:
        found.start(f"{OURS}.{ORG}")
        _start_go(found, programs / "chaincode")
        yield found


def _start_go(network: Network, program: Path) -> None:
    """The Go chaincode in the place of ours: same address, same certificates."""
    contract = next(item for item in network.spec.contracts if item.name == THEIRS)
    name = process_name(contract, ORG)
    path = network.folder.contracts / f"{name}.toml"
    config = tomllib.loads(path.read_text())
    environment = {
        "CHAINCODE_ID": config["id"],
        "CHAINCODE_ADDRESS": config["listen"],
        "CHAINCODE_KEY": str(path.parent / config["tls_key"]),
        "CHAINCODE_CERTIFICATE": str(path.parent / config["tls_certificate"]),
        "CHAINCODE_CLIENT_CA": str(path.parent / config["client_ca"]),
    }
    network.processes.start(Program(name, (str(program),), environment, network.folder.data(name)))
