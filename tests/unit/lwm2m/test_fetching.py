"""Notifications whose body is fetched: a device that never gives the rest takes no other's turn."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flexrelay_adapters.lwm2m import Lwm2mAdapter, Lwm2mConfig
from flexrelay_adapters.lwm2m.adapter import FETCHES
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.message import parse, serialise, uint
from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.registration import Parameters
from flexrelay_sdk.testkit import RecordingSink, running, until

pytestmark = pytest.mark.timeout(300)


async def test_a_device_that_never_gives_the_rest_has_one_turn(tmp_path: Path) -> None:
    section = {"name": "lwm2m", "coap": {"host": "127.0.0.1", "port": 0}, "state": tmp_path / "state.db"}
    adapter = Lwm2mAdapter(Lwm2mConfig.model_validate(section))
    async with running(adapter, RecordingSink()):
        sent: dict[str, list[bytes]] = {"silent": [], "other": []}

        def notify(name: str, mid: int) -> None:
            registration = adapter.registrations.by_credential[name]
            assert registration.peer is not None
            options = [uint(codes.OBSERVE, mid), uint(codes.CONTENT_FORMAT, codes.SENML_CBOR), uint(codes.BLOCK2, 0x0E)]
            data = serialise(codes.NON, codes.CONTENT, mid, b"token", options, bytes(1024))
            adapter.layer.receive(registration.peer, data)

        peers = {name: Peer(("127.0.0.1", 9), name, False, out.append) for name, out in sent.items()}
        for name, peer in peers.items():
            for _ in range(2):  # registering again gives no more turns
                said = Parameters(name, version="1.1")
                registration = adapter.registrations.register(peer, said, ((3305, 0),), time.time())
            registration.observed[b"token"] = "/3305/0"
        for mid in range(1, 200):
            notify("silent", mid)
        silent = adapter.registrations.by_credential["silent"]
        assert len(silent.fetches) == FETCHES
        await until(lambda: bool(sent["silent"]), 60, "the next block is asked for")
        assert adapter._turns._value == 63
        notify("other", 1)
        await until(lambda: bool(sent["other"]), 60, "the other's next block is asked for")
        asked = parse(sent["other"][0])
        assert asked.code == codes.GET and asked.uint(codes.BLOCK2) == 0x16
