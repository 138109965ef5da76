"""The configuration that a new data folder begins with."""

from collections.abc import Sequence

_HEAD = """\
# One process: one embedded ledger and the gateways of these organisations. Every key can also be given by environment,
# e.g. FLEXRELAY_HTTP__PORT=9464. The passphrase of the key files comes from FLEXRELAY_PASSPHRASE or from
# secrets/flexrelay_passphrase. Relative paths are relative to this folder.
network = "{network}"
log_level = "INFO"

[ledger]
kind = "embedded"
folder = "ledger"

# /healthz, /readyz and /metrics on loopback; 0 turns them off.
[http]
port = {port}
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


def configuration(network: str, orgs: Sequence[str], http_port: int) -> str:
    """The text of flexrelay.toml."""
    return _HEAD.format(network=network, port=http_port) + "".join(_GATEWAY.format(org=org) for org in orgs)
