"""Protocols side by side: what devices of each have measured and been told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from flexrelay.demo.barrier import delivery_reaches
from flexrelay.demo.cast import Cast
from flexrelay.demo.operation import Operation
from flexrelay_sdk import CommandState

NAMES: Final[Mapping[str, str]] = {"mqtt": "MQTT", "lwm2m": "LwM2M", "opcua": "OPC UA"}
BATCH: Final = 2_000


@dataclass
class Tally:
    """`devices` by kind. `readings` as they stand in the journals, once a receiver; `signed` of them carry the device's
    own signature, the gateway attests the others. Commands: `acked` by the device, `confirmed` by a later reading."""

    devices: dict[str, int] = field(default_factory=dict)
    organisations: list[str] = field(default_factory=list)
    readings: int = 0
    signed: int = 0
    commands: int = 0
    acked: int = 0
    confirmed: int = 0


async def tally(cast: Cast, done: Operation) -> dict[str, Tally]:
    """By protocol, in the order of NAMES."""
    found = {protocol: Tally() for protocol in NAMES}
    spoken: dict[str, str] = {}
    for org, gateway in cast.site.gateways.items():
        for record in gateway.devices:
            protocol = record.credentials[0][0] if record.credentials else "mqtt"
            entry = found[protocol]
            if org not in entry.organisations:
                entry.organisations.append(org)
            if record.did not in spoken:
                entry.devices[record.kind] = entry.devices.get(record.kind, 0) + 1
            spoken[record.did] = protocol
        position, end = 0, gateway.journal.end
        await delivery_reaches(gateway, end)
        while position < end:
            entries = await gateway.journal.read(position, min(BATCH, end - position))
            for item in entries:
                found[item.protocol].readings += len(item.measurements)
                found[item.protocol].signed += len(item.measurements) if item.signed else 0
            position = entries[-1].position
    for org, given in done.commands.items():
        for order_id in sorted({record.command.correlation_id for record in given}):
            for command in await cast.site.gateways[org].dispatcher.commands(order_id):
                entry = found[spoken[command.command.did]]
                entry.commands += 1
                entry.acked += command.state is CommandState.ACKED
                entry.confirmed += command.confirmation is not None
    return found
