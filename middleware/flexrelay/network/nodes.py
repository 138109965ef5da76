"""Orderers and peers as programs: everything that differs from Fabric's sample files is in their environment."""

from pathlib import Path
from typing import Final

from flexrelay.network.authority import write_whole
from flexrelay.network.build import Binaries
from flexrelay.network.folder import Folder
from flexrelay.network.genesis import Hosts
from flexrelay.network.material import Material
from flexrelay.network.processes import Program

_DETECT: Final = """#!/bin/sh
# Takes packages of chaincode that runs as a service, and no others.
grep -q '"type" *: *"ccaas"' "$2/metadata.json"
"""
_BUILD: Final = """#!/bin/sh
# Nothing to build: the address and the certificates are all there is.
set -e
cp "$1/connection.json" "$3/connection.json"
if [ -d "$1/META-INF" ]; then cp -R "$1/META-INF" "$3/"; fi
"""
_RELEASE: Final = """#!/bin/sh
# Tells the peer where the chaincode listens.
set -e
mkdir -p "$2/chaincode/server"
cp "$1/connection.json" "$2/chaincode/server/connection.json"
if [ -d "$1/META-INF" ]; then cp -R "$1/META-INF/." "$2/"; fi
"""

_LOG_FORMAT: Final = "%{time:2006-01-02T15:04:05.000Z07:00} %{level} %{module} %{message}"  # without colours

PEER_PORTS: Final = ("", ".chaincode", ".operations")
ORDERER_PORTS: Final = ("", ".admin", ".operations")
"""What follows the node's name in a port's purpose."""


def write_builder(folder: Folder) -> Path:
    """The external builder that peers use for chaincode as a service."""
    place = folder.root / "builder"
    for name, script in (("detect", _DETECT), ("build", _BUILD), ("release", _RELEASE)):
        path = place / "bin" / name
        if not path.is_file() or path.read_text() != script:  # a peer may be running it
            write_whole(path, script.encode(), mode=0o755)
    return place


def orderer(binaries: Binaries, folder: Folder, material: Material, name: str, hosts: Hosts) -> Program:
    """One ordering node; it joins channels later, through its admin endpoint."""
    data = folder.data(name)
    tls = material.tls_pair(name, "orderer")
    root = str(material.tls_root)
    environment = {
        "FABRIC_CFG_PATH": str(binaries.config),
        # At WARNING it would log a line for each transaction that a client sends twice.
        "FABRIC_LOGGING_FORMAT": _LOG_FORMAT,
        "FABRIC_LOGGING_SPEC": "WARNING:orderer.common.broadcast=ERROR",
        "ORDERER_GENERAL_LISTENADDRESS": hosts.bind,
        "ORDERER_GENERAL_LISTENPORT": str(hosts.port(name)),
        "ORDERER_GENERAL_LOCALMSPID": material.org,
        "ORDERER_GENERAL_LOCALMSPDIR": str(material.identity(name, "orderer")),
        "ORDERER_GENERAL_TLS_ENABLED": "true",
        "ORDERER_GENERAL_TLS_CERTIFICATE": str(tls.certificate),
        "ORDERER_GENERAL_TLS_PRIVATEKEY": str(tls.key),
        "ORDERER_GENERAL_TLS_ROOTCAS": f"[{root}]",
        "ORDERER_GENERAL_CLUSTER_CLIENTCERTIFICATE": str(tls.certificate),
        "ORDERER_GENERAL_CLUSTER_CLIENTPRIVATEKEY": str(tls.key),
        "ORDERER_GENERAL_CLUSTER_ROOTCAS": f"[{root}]",
        "ORDERER_GENERAL_CLUSTER_RPCTIMEOUT": "1s",  # 7 s is how long a dead leader would hold everything
        # By default others dial an orderer that was away ever more seldom, up to every two minutes: so long it hears
        # nothing of them when it is back, and is no help when the next one dies. Fabric 2.5 has no such setting.
        "ORDERER_GENERAL_BACKOFF_BASEDELAY": "100ms",
        "ORDERER_GENERAL_BACKOFF_MAXDELAY": "1s",
        "ORDERER_GENERAL_BOOTSTRAPMETHOD": "none",
        "ORDERER_CHANNELPARTICIPATION_ENABLED": "true",
        "ORDERER_ADMIN_LISTENADDRESS": hosts.listening(f"{name}.admin"),
        "ORDERER_ADMIN_TLS_ENABLED": "true",
        "ORDERER_ADMIN_TLS_CERTIFICATE": str(tls.certificate),
        "ORDERER_ADMIN_TLS_PRIVATEKEY": str(tls.key),
        "ORDERER_ADMIN_TLS_ROOTCAS": f"[{root}]",
        "ORDERER_ADMIN_TLS_CLIENTROOTCAS": f"[{root}]",
        "ORDERER_ADMIN_TLS_CLIENTAUTHREQUIRED": "true",
        "ORDERER_OPERATIONS_LISTENADDRESS": hosts.listening(f"{name}.operations"),
        "ORDERER_OPERATIONS_TLS_ENABLED": "false",
        "ORDERER_METRICS_PROVIDER": "prometheus",
        "ORDERER_FILELEDGER_LOCATION": str(data / "ledger"),
        "ORDERER_CONSENSUS_WALDIR": str(data / "wal"),
        "ORDERER_CONSENSUS_SNAPDIR": str(data / "snapshots"),
    }
    return Program(name, (binaries.path("orderer"),), environment, data)


def peer(binaries: Binaries, folder: Folder, material: Material, name: str, others: list[str], hosts: Hosts) -> Program:
    """One peer; `others` are its organisation's other peers."""
    data = folder.data(name)
    tls = material.tls_pair(name, "peer")
    address = hosts.endpoint(name)
    environment = {
        "FABRIC_CFG_PATH": str(binaries.config),
        "FABRIC_LOGGING_FORMAT": _LOG_FORMAT,
        "FABRIC_LOGGING_SPEC": "WARNING",
        "CORE_PEER_ID": name,
        "CORE_PEER_ADDRESS": address,
        "CORE_PEER_LISTENADDRESS": hosts.listening(name),
        "CORE_PEER_CHAINCODELISTENADDRESS": hosts.listening(f"{name}.chaincode"),
        "CORE_PEER_CHAINCODEADDRESS": f"{hosts.host(name)}:{hosts.port(f'{name}.chaincode')}",
        "CORE_PEER_LOCALMSPID": material.org,
        "CORE_PEER_MSPCONFIGPATH": str(material.identity(name, "peer")),
        "CORE_PEER_FILESYSTEMPATH": str(data / "data"),
        "CORE_LEDGER_SNAPSHOTS_ROOTDIR": str(data / "snapshots"),
        "CORE_PEER_TLS_ENABLED": "true",
        "CORE_PEER_TLS_CERT_FILE": str(tls.certificate),
        "CORE_PEER_TLS_KEY_FILE": str(tls.key),
        "CORE_PEER_TLS_ROOTCERT_FILE": str(material.tls_root),
        "CORE_PEER_GOSSIP_ENDPOINT": address,
        "CORE_PEER_GOSSIP_EXTERNALENDPOINT": address,
        "CORE_PEER_GOSSIP_BOOTSTRAP": " ".join(hosts.endpoint(other) for other in others) or address,
        "CORE_PEER_GOSSIP_ORGLEADER": "true",
        "CORE_PEER_GOSSIP_USELEADERELECTION": "false",
        # An anchor peer that has not joined yet is tried again after this long (default 25 s): until then gateways find
        # no endorsers of its organisation.
        "CORE_PEER_GOSSIP_RECONNECTINTERVAL": "1s",
        # Peers that meet refuse each other's news until they have each other's certificates: ask for them more often.
        "CORE_PEER_GOSSIP_PULLINTERVAL": "1s",
        "CORE_PEER_GOSSIP_REQUESTSTATEINFOINTERVAL": "1s",
        "CORE_PEER_GOSSIP_PUBLISHSTATEINFOINTERVAL": "1s",
        "CORE_PEER_GOSSIP_MEMBERSHIPTRACKERINTERVAL": "1s",
        # Without it a peer waits ever longer, up to an hour, for orderers that were away.
        "CORE_PEER_DELIVERYCLIENT_RECONNECTBACKOFFTHRESHOLD": "1s",
        # How long a BFT channel's peer stays with an orderer that is behind the others (default 30 s), as one is that
        # has just come back.
        "CORE_PEER_DELIVERYCLIENT_BLOCKCENSORSHIPTIMEOUTKEY": "3s",
        "CORE_OPERATIONS_LISTENADDRESS": hosts.listening(f"{name}.operations"),
        "CORE_OPERATIONS_TLS_ENABLED": "false",
        "CORE_METRICS_PROVIDER": "prometheus",
        # A call that runs holds the ledger's read lock: no block of its channel is committed meanwhile. More than the
        # contracts' own limit, which answers with a reason.
        "CORE_CHAINCODE_EXECUTETIMEOUT": "6s",
        "CORE_VM_ENDPOINT": "",
        "CORE_CHAINCODE_EXTERNALBUILDERS": f"[{{name: ccaas, path: {write_builder(folder)}}}]",
    }
    return Program(name, (binaries.path("peer"), "node", "start"), environment, data)
