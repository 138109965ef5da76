"""Connection profiles: what a gateway of an organisation must know to use a channel."""

from pathlib import Path
from typing import Any

from flexrelay.network.authority import write_whole
from flexrelay.network.folder import Folder, relative
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
    identity: tuple[Path, Path | None],
    place: Path,
) -> dict[str, Any]:
    """The document of a profile in the folder `place`; its own organisation's peers come first.

    `identity`: the gateway's certificate, and its key when that is in a file.
    """
    certificate, key = identity
    members = spec.members(channel)
    peers = [(name, peer) for name in (org, *(m for m in members if m != org)) for peer in spec.peer_names(name)]
    return {
        "v": 1,
        "channel": channel.name,
        "chaincode": contract.name,
        "chaincode_version": contract.version,
        "org": org,
        "entries": dict(sorted(contract.entries.items())),
        "identity": {
            "certificate": relative(certificate, place),
            "key": None if key is None else relative(key, place),
        },
        "peers": [
            {
                "org": owner,
                "endpoint": hosts.endpoint(peer),
                "server_name": peer,
                "tls_ca": relative(materials[owner].tls_root, place),
            }
            for owner, peer in peers
        ],
        "organisations": [
            {"msp": name, "kind": kind, "ca": relative(materials[name].signing_root, place)}
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
                path = folder.profile(channel.name, org if not number else f"{org}.{contract.name}")
                pair = materials[org].gateway()
                identity = (pair.certificate, pair.key)
                document = profile(spec, channel, contract, org, materials, hosts, identity, path.parent)
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
    document = profile(spec, channel, contract, org, materials, hosts, (pem, None), path.parent)
    write_whole(path, dumps(document).encode())
    return path
