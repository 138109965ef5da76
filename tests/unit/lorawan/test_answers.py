"""Answers to downlinks, when many are under way."""

from __future__ import annotations

import json

from conformance.adapters.lorawan.rig import DOWN, EUI

from flexrelay.dispatch.dispatcher import IN_FLIGHT
from flexrelay_adapters.lorawan.config import Downlink
from flexrelay_adapters.lorawan.servers import SERVERS, LorawanDialect, key_of
from flexrelay_sdk import Command


def test_the_oldest_of_as_many_as_a_gateway_sends_is_known() -> None:
    """Sleeping devices: each of their commands waits until its device wakes."""
    dialect = LorawanDialect(SERVERS["chirpstack"], "app", {"set_power": Downlink.model_validate(DOWN)})
    for number in range(IN_FLIGHT):
        parameters = {"power_w": 1, "from_ms": 0, "until_ms": 1_000}
        dialect.payload(Command(f"c-{number}", "did:x", EUI, "set_power", parameters, 1_000, "o"))
    for name in ("c-0", f"c-{IN_FLIGHT - 1}"):
        told = json.dumps({"queueItemId": key_of(name), "acknowledged": True}).encode()
        result = dialect.result(f"application/app/device/{EUI}/event/ack", told)
        assert result is not None and (result.command_id, result.state) == (name, "acked")
