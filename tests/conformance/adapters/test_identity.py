"""A device that calls itself another in the middle of its session, on the protocols that stand on a broker: the access
list that each adapter's README asks for keeps it to its own topics. Elsewhere: certificates and tokens in
test_certificates.py, what a payload says in the contract's bad frames, tests/integration/lwm2m/test_hostile.py,
tests/integration/opcua/test_security.py, tests/integration/modbus/test_sunspec.py."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple

import aiomqtt
import pytest
from conformance.adapters.iotagent.rig import KEY, JsonSpeech, MqttDeviceRig, UltralightSpeech
from conformance.adapters.mqtt.rig import MqttRig
from conformance.adapters.opcua_pubsub.rig import PubSubRig, reading
from conformance.adapters.sparkplug.rig import SparkplugRig, one
from support.sparkplug_edge import GROUP, NODE
from support.sparkplug_edge import PASSWORD as EDGE_PASSWORD

from flexrelay_sdk.testkit import RecordingSink, running, until

PATIENCE_S = 60.0
ANOTHER = one("Meter/Power", datatype=10, double_value=99.0)


class Liar(NamedTuple):
    """What a device with its own account writes where another's readings belong."""

    open: Callable[[Path], AbstractAsyncContextManager[Any]]
    attempts: tuple[tuple[str, bytes], ...]


LIARS = {
    "mqtt": Liar(lambda folder: MqttRig.open(folder, "5"), (("flexrelay/v1/dso/meter2/readings", b'{"p": 99}'),)),
    "ultralight": Liar(
        lambda folder: MqttDeviceRig.open(folder, UltralightSpeech()),
        ((f"/ul/{KEY}/meter2/attrs", b"p|99"), (f"/ul/{KEY}/meter2/cmdexe", b"meter2@set_power|ok")),
    ),
    "fiware_json": Liar(
        lambda folder: MqttDeviceRig.open(folder, JsonSpeech()),
        ((f"/json/{KEY}/meter2/attrs", b'{"p": 99}'), (f"/json/{KEY}/meter2/cmdexe", b'{"set_power": "ok"}')),
    ),
    "sparkplug": Liar(
        lambda folder: SparkplugRig.open(folder, "5"),
        (
            (f"spBv1.0/{GROUP}/NBIRTH/edge2", ANOTHER),
            (f"spBv1.0/{GROUP}/NDATA/edge2", ANOTHER),
            (f"spBv1.0/{GROUP}/DDATA/edge2/meter1", ANOTHER),
        ),
    ),
    "opcua_pubsub": Liar(
        lambda folder: PubSubRig.open(folder, "5"),
        (("opcua/json/data/plc2/group/meter", reading(99, publisher="plc2")),),
    ),
}


@pytest.mark.mosquitto
@pytest.mark.parametrize("name", LIARS)
async def test_another_devices_topics_are_closed(name: str, tmp_path: Path) -> None:
    liar, sink = LIARS[name], RecordingSink()
    async with liar.open(tmp_path) as rig:
        user, password = getattr(rig, "user", NODE), getattr(rig, "password", EDGE_PASSWORD)
        async with running(rig.adapter(), sink, connect_s=PATIENCE_S):
            await rig.send(1)
            async with aiomqtt.Client(
                "127.0.0.1", rig._broker.port, username=user, password=password, identifier=f"{user}-again", timeout=60
            ) as client:
                for topic, payload in liar.attempts:
                    await client.publish(topic, payload, qos=1)
            await rig.send(2)
            # a QoS 1 publication is answered when the broker has dealt with it: what it lets through is here before
            await until(lambda: 2 in sink.values(), PATIENCE_S, "the device's own reading")
    assert set(sink.values()) == {1, 2} and {frame.credential for frame in sink.frames} == {rig.credential}
    assert sink.dead == [] and sink.faults == []
