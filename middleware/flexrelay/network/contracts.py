"""Contracts on a network: their packages, their processes, their definitions in the lifecycle's terms."""

import json
import sys
from pathlib import Path

from flexrelay.network.authority import write_secret, write_whole
from flexrelay.network.folder import Folder, relative
from flexrelay.network.genesis import Hosts
from flexrelay.network.material import Material
from flexrelay.network.processes import Program
from flexrelay.network.spec import Collection, Contract, Spec
from flexrelay.network.toml import dumps
from flexrelay_chaincode.package import ClientTls, connection, package, package_id

PORTS = ("", ".health")


def process_name(contract: Contract, org: str) -> str:
    """Each version has a process of its own: the old one serves until the new one is committed."""
    return f"{contract.label}.{org}"


def ensure_package(folder: Folder, material: Material, contract: Contract, hosts: Hosts) -> Path:
    """The organisation's package of this contract and version, made once. A secret: it holds the key to dial with."""
    path = folder.package(contract.label, material.org)
    if not path.is_file():
        server = process_name(contract, material.org)
        material.tls_pair(server, "client")
        dialling = material.tls_pair("chaincode-client", "client")
        tls = ClientTls(material.tls_root.read_text(), dialling.certificate.read_text(), dialling.key.read_text())
        write_secret(path, package(contract.label, connection(hosts.endpoint(server), tls)))
    return path


def id_of(package_file: Path, contract: Contract) -> str:
    return package_id(contract.label, package_file.read_bytes())


def program(folder: Folder, spec: Spec, contract: Contract, material: Material, hosts: Hosts) -> Program:
    """The organisation's process of this contract; writes its configuration."""
    name = process_name(contract, material.org)
    tls = material.tls_pair(name, "client")
    package_file = ensure_package(folder, material, contract, hosts)
    config = folder.contracts / f"{name}.toml"
    document = {
        "id": id_of(package_file, contract),
        "name": contract.name,
        "org": material.org,
        "listen": hosts.listening(name),
        "health": hosts.listening(f"{name}.health"),
        "tls_certificate": relative(tls.certificate, config.parent),
        "tls_key": relative(tls.key, config.parent),
        "client_ca": relative(material.tls_root, config.parent),
        "contract": contract.module,
        "guard_ms": spec.guard_ms,
        "forward_to": contract.forward_to,
        "collections": {name: sorted(item.orgs) for name, item in sorted(contract.collections.items())},
        "entries": dict(sorted(contract.entries.items())),
    }
    write_whole(config, dumps(document).encode())
    command = (sys.executable, "-m", "flexrelay_chaincode", "--config", str(config))
    # The same packages as here, also where they are on a path that was set for this process only.
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "PYTHONUNBUFFERED": "1"}
    return Program(name, command, environment, folder.data(name), stamp=dumps(document))


def definition_options(folder: Folder, contract: Contract, channel: str, sequence: int) -> list[str]:
    """The options that approve and commit share: both must name exactly the same."""
    options = [
        *("--channelID", channel, "--name", contract.name),
        *("--version", contract.version, "--sequence", str(sequence)),
    ]
    if contract.policy is not None:
        peers = ",".join(f"'{org}.peer'" for org in sorted(contract.policy.orgs))
        options += ["--signature-policy", f"OutOf({contract.policy.required},{peers})"]
    if contract.collections:
        path = folder.contracts / f"{contract.label}.{channel}.collections.json"  # channels are done at once
        entries = [_collection(name, item) for name, item in sorted(contract.collections.items())]
        write_whole(path, json.dumps(entries, indent=1).encode())
        options += ["--collections-config", str(path)]
    return options


def _collection(name: str, item: Collection) -> dict[str, object]:
    members = ",".join(f"'{org}.member'" for org in sorted(item.orgs))
    return {
        "name": name,
        "policy": f"OR({members})",
        # No other peer has to have the value before the transaction is endorsed: one that is down would stop everybody.
        "requiredPeerCount": 0,
        "maxPeerCount": max(1, len(item.orgs)),
        "blockToLive": item.block_to_live,
        "memberOnlyRead": item.member_only,
        "memberOnlyWrite": False,
    }
