"""A channel's first block, made by configtxgen from a configuration that the description implies."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from flexrelay.network.build import Binaries
from flexrelay.network.errors import CommandFailed
from flexrelay.network.material import Material, dns_name
from flexrelay.network.spec import Channel, Spec

HOST: Final = "127.0.0.1"

_RAFT: Final = {
    "TickInterval": "100ms",  # the default of 500 ms makes a leader's death a pause of 12 s
    "ElectionTick": 10,
    "HeartbeatTick": 1,
    "MaxInflightBlocks": 5,
    "SnapshotIntervalSize": "16 MB",
}
_BFT: Final = {  # naming the section replaces every default, so each key is listed
    "RequestForwardTimeout": "1s",
    "RequestComplainTimeout": "3s",
    "RequestAutoRemoveTimeout": "3m",
    # A change of the view for which one orderer is not ready fails after this long, the next one after twice as long:
    # with 5 s the death of a second leader soon after the first one's return was a pause of 13 to 40 s.
    "ViewChangeTimeout": "2s",
    "ViewChangeResendInterval": "500ms",
    "LeaderHeartbeatTimeout": "4s",
    "LeaderHeartbeatCount": 10,
    "CollectTimeout": "500ms",
    # No SyncOnStart: orderers that start together would wait 5 s for each other, without serving, and then complain.
    "IncomingMessageBufferSize": 200,
    "RequestPoolSize": 4000,
}


class Hosts:
    """Where nodes are reached: on loopback with the network's ports, or by name in a cluster."""

    def __init__(self, ports: Mapping[str, int], names: bool = False) -> None:
        self._ports = ports
        self._names = names

    @property
    def bind(self) -> str:
        """Where servers listen."""
        return "0.0.0.0" if self._names else HOST  # noqa: S104  # in a container, whose ports are published one by one

    def host(self, node: str) -> str:
        return dns_name(node) if self._names else HOST

    def listening(self, purpose: str) -> str:
        """The address that a server listens on."""
        return f"{self.bind}:{self._ports[purpose]}"

    def port(self, node: str) -> int:
        return self._ports[node]

    def endpoint(self, node: str) -> str:
        return f"{self.host(node)}:{self.port(node)}"


def write_genesis(
    binaries: Binaries, spec: Spec, channel: Channel, materials: Mapping[str, Material], hosts: Hosts, to: Path
) -> None:
    """Write the channel's first block into the file `to`, whole or not at all. Raises CommandFailed."""
    work = to.with_suffix("")
    work.mkdir(parents=True, exist_ok=True)
    profile = configuration(spec, channel, materials, hosts)
    (work / "configtx.yaml").write_text(json.dumps({"Profiles": {"Channel": profile}}, indent=1))  # JSON is YAML
    draft = work / "genesis.block"
    done = subprocess.run(
        [
            *(binaries.path("configtxgen"), "-configPath", str(work), "-profile", "Channel"),
            *("-channelID", channel.name, "-outputBlock", str(draft)),
        ],
        env={"FABRIC_CFG_PATH": str(work), "FABRIC_LOGGING_SPEC": "ERROR", "FABRIC_LOGGING_FORMAT": "%{message}"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not draft.is_file():
        said = done.stderr.strip()
        why = said.partition("\ngoroutine ")[0]
        raise CommandFailed(f"channel {channel.name}: configtxgen made no genesis block: {why[:2000]}", said)
    draft.replace(to)


def configuration(spec: Spec, channel: Channel, materials: Mapping[str, Material], hosts: Hosts) -> dict[str, Any]:
    """The channel's profile in configtxgen's terms."""
    capability = "V3_0" if spec.fabric == "3.1" else "V2_0"
    return {
        "Capabilities": {capability: True},
        "Policies": _channel_policies(),
        "Orderer": _orderer(spec, channel, materials, hosts),
        "Application": {
            "Capabilities": {"V2_5": True},
            "Policies": {
                **_channel_policies(),
                "LifecycleEndorsement": _meta("MAJORITY Endorsement"),
                "Endorsement": _meta("MAJORITY Endorsement"),
            },
            "Organizations": [_peer_organisation(spec, materials[org], hosts) for org in spec.members(channel)],
        },
    }


def _orderer(spec: Spec, channel: Channel, materials: Mapping[str, Material], hosts: Hosts) -> dict[str, Any]:
    material = materials[spec.orderer_organisation]
    cut = channel.block
    section: dict[str, Any] = {
        "OrdererType": "BFT" if spec.consensus == "bft" else "etcdraft",
        "BatchTimeout": f"{cut.timeout_ms}ms",
        "BatchSize": {
            "MaxMessageCount": cut.max_messages,
            "AbsoluteMaxBytes": cut.absolute_bytes,
            "PreferredMaxBytes": cut.preferred_bytes,
        },
        "Capabilities": {"V2_0": True},
        "Policies": {**_channel_policies(), "BlockValidation": _meta("ANY Writers")},
        "Organizations": [
            {
                **_organisation(material, writers=("member",)),
                "OrdererEndpoints": [hosts.endpoint(name) for name in spec.orderer_names],
            }
        ],
    }
    consenters = []
    for number, name in enumerate(spec.orderer_names):
        tls = str(material.tls_pair(name, "orderer").certificate)
        consenters.append(
            {
                "ID": number + 1,
                "Host": hosts.host(name),
                "Port": hosts.port(name),
                "MSPID": material.org,
                "Identity": str(material.certificate_of(name)),
                "ClientTLSCert": tls,
                "ServerTLSCert": tls,
            }
        )
    if spec.consensus == "bft":
        section["ConsenterMapping"] = consenters
        section["SmartBFT"] = {"RequestBatchMaxInterval": f"{cut.timeout_ms}ms", **_BFT}
    else:
        wanted = ("Host", "Port", "ClientTLSCert", "ServerTLSCert")
        section["EtcdRaft"] = {
            "Consenters": [{key: consenter[key] for key in wanted} for consenter in consenters],
            "Options": _RAFT,
        }
    return section


def _peer_organisation(spec: Spec, material: Material, hosts: Hosts) -> dict[str, Any]:
    first = spec.peer_names(material.org)[0]
    organisation = _organisation(material, writers=("admin", "client"))  # peers endorse, they submit nothing
    organisation["Policies"]["Endorsement"] = _signature(material.org, "peer")
    organisation["AnchorPeers"] = [
        {"Host": hosts.host(first), "Port": hosts.port(first)}
    ]  # gossip between organisations
    return organisation


def _organisation(material: Material, writers: tuple[str, ...]) -> dict[str, Any]:
    return {
        "Name": material.org,
        "ID": material.org,
        "MSPDir": str(material.msp),
        "Policies": {
            "Readers": _signature(material.org, "member"),
            "Writers": _signature(material.org, *writers),
            "Admins": _signature(material.org, "admin"),
        },
    }


def _channel_policies() -> dict[str, Any]:
    return {"Readers": _meta("ANY Readers"), "Writers": _meta("ANY Writers"), "Admins": _meta("MAJORITY Admins")}


def _signature(org: str, *roles: str) -> dict[str, str]:
    principals = ",".join(f"'{org}.{role}'" for role in roles)
    return {"Type": "Signature", "Rule": f"OR({principals})"}


def _meta(rule: str) -> dict[str, str]:
    return {"Type": "ImplicitMeta", "Rule": rule}
