"""Connection profiles: what a gateway of an organisation must know to use a channel."""

from pathlib import Path
from typing import Any

from flexrelay.network.authority import write_whole
from flexrelay.network.folder import Folder
from flexrelay.network.genesis import Hosts
from flexrelay.network.material import Material
from flexrelay.network.spec import Channel, Contract, Spec
from flexrelay.network.toml import dumps


def profile(
    spec: Spec,
    channel: Channel,
    contract: Contract,
    org: str,
    materials: dict[str, Material],
    hosts: Hosts,
    identity: dict[str, str],
) -> dict[str, Any]:
    """The profile's document; its own organisation's peers come first. Paths are absolute."""
    members = spec.members(channel)
    peers = [(name, peer) for name in (org, *(m for m in members if m != org)) for peer in spec.peer_names(name)]
    return {
        "v": 1,
        "channel": channel.name,
        "chaincode": contract.name,
        "chaincode_version": contract.version,
        "org": org,
        "entries": dict(sorted(contract.entries.items())),
        "identity": identity,
        "peers": [
            {
                "org": owner,
                "endpoint": hosts.endpoint(peer),
                "server_name": peer,
                "tls_ca": str(materials[owner].tls_root),
            }
            for owner, peer in peers
        ],
        "organisations": [
            {"msp": name, "kind": kind, "ca": str(materials[name].signing_root)}
            for name, kind in [*((member, "peer") for member in members), (spec.orderer_organisation, "orderer")]
        ],
    }


def write_profiles(folder: Folder, spec: Spec, materials: dict[str, Material], hosts: Hosts) -> list[Path]:
    """One for each channel and organisation, with a gateway identity whose key is in a file.

    `profiles/<channel>/<organisation>.toml` is of the channel's first contract with state,
    `profiles/<channel>/<organisation>.<contract>.toml` of each further one.
    """
    written = []
    for channel in spec.channels:
        stateful = [contract for contract in spec.contracts_of(channel) if contract.forward_to is None]
        for number, contract in enumerate(stateful):
            for org in spec.members(channel):
                pair = materials[org].gateway()
                identity = {"certificate": str(pair.certificate), "key": str(pair.key)}
                path = folder.profile(channel.name, org if not number else f"{org}.{contract.name}")
                document = profile(spec, channel, contract, org, materials, hosts, identity)
                write_whole(path, dumps(document).encode())
                written.append(path)
    return written


def write_gateway_profile(
    folder: Folder, spec: Spec, materials: dict[str, Material], hosts: Hosts, org: str, name: str, certificate: bytes
) -> Path:
    """The profile, on the first channel and its first contract with state, of a gateway whose key is held elsewhere.

    `profiles/<channel>/<organisation>.<name>.toml`, the certificate (PEM) beside it.
    """
    channel = spec.channels[0]
    contract = next(found for found in spec.contracts_of(channel) if found.forward_to is None)
    path = folder.profile(channel.name, f"{org}.{name}")
    pem = path.with_suffix(".pem")
    write_whole(pem, certificate)
    document = profile(spec, channel, contract, org, materials, hosts, {"certificate": str(pem)})
    write_whole(path, dumps(document).encode())
    return path
