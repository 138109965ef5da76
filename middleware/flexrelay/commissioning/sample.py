"""The configuration that a new data folder begins with."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

NONE: Final[Mapping[str, Path]] = MappingProxyType({})

_HEAD = """\
# One process: one ledger and the gateways of these organisations. Every key can also be given by environment,
# e.g. FLEXRELAY_HTTP__PORT=9464. The passphrase of the key files comes from FLEXRELAY_PASSPHRASE or from
# secrets/flexrelay_passphrase. Relative paths are relative to this folder.
network = "{network}"
log_level = "INFO"

{ledger}
# /healthz, /readyz and /metrics on loopback; 0 turns them off.
[http]
port = {port}
"""

_EMBEDDED = """\
[ledger]
kind = "embedded"
folder = "ledger"
"""

_FABRIC = """\
# A Hyperledger Fabric network: the connection profile of each gateway's organisation (docs/fabric.md).
[ledger]
kind = "fabric"

[ledger.profiles]
{profiles}
"""

_GATEWAY = """
[[gateways]]
org = "{org}"
folder = "{org}"

# Windows close this long after an interval's end (market time), and roots are anchored this often.
[gateways.windows]
grace_s = 900
anchor_every_s = 3600

# Readings and commands over MQTT: take the signs away and fill in the broker.
# [gateways.adapters.field]
# type = "mqtt"
# host = "127.0.0.1"
# port = 1883
# protocol = "5"
# client_id = "gateway-{org}"
# username = "gateway-{org}"
# password_file = "secrets/mqtt-{org}"
# readings = ["flexrelay/v1/{org}/{{device}}/readings"]
# commands = "flexrelay/v1/{org}/{{device}}/commands"
# results = "flexrelay/v1/{org}/{{device}}/results"
"""


def configuration(network: str, orgs: Sequence[str], http_port: int, profiles: Mapping[str, Path] = NONE) -> str:
    """The text of flexrelay.toml; with `profiles` (absolute paths) the ledger is Fabric."""
    ledger = _EMBEDDED
    if profiles:
        ledger = _FABRIC.format(profiles="\n".join(f"{org} = {json.dumps(str(profiles[org]))}" for org in orgs))
    head = _HEAD.format(network=network, port=http_port, ledger=ledger)
    return head + "".join(_GATEWAY.format(org=org) for org in orgs)
