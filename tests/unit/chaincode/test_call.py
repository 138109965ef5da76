"""A call from TRANSACTION to COMPLETED, over a real stream."""

from unit.chaincode.network import PACKAGE, failure, network, now

from flexrelay_contracts.invocation import EVENTS, decode_events, query_args
from flexrelay_schemas.canonical import parse


async def test_the_shim_registers_under_the_package_id() -> None:
    async with network() as net:
        assert net.peer.registered == PACKAGE


async def test_a_put_is_written_and_read_back() -> None:
    async with network() as net:
        result = await net.submit("probe.put", {"key": "a", "value": "1"})
        assert (result.status, parse(result.payload)) == (200, {"written": "a"})
        assert result.writes["a"] == b"1"
        assert await net.query("probe.get", {"key": "a"}) == "1"
        assert await net.query("probe.get", {"key": "b"}) is None


async def test_events_come_in_order_in_one_event() -> None:
    async with network() as net:
        result = await net.submit("probe.emit", {"names": ["one", "two", "one"]})
        assert result.event is not None and result.event[0] == EVENTS
        assert decode_events(result.event[1]) == [
            (name, f"payload of {name}".encode()) for name in ("one", "two", "one")
        ]


async def test_a_refusal_reaches_the_client_and_nothing_is_written() -> None:
    async with network() as net:
        result = await net.submit("probe.write_then_refuse", {"key": "a"})
        assert failure(result) == ("refused", "no")
        assert (result.writes, result.event) == ({}, None)


async def test_the_contract_sees_the_proposal() -> None:
    async with network() as net:
        result = await net.submit("probe.about", {}, tx_id="ab" * 32, time_ms=(stamp := now() - 5))
        creator = {"org": "dso", "identity": net.client.identity}
        assert parse(result.payload) == {"tx_id": "ab" * 32, "tx_time": stamp, "creator": creator}


async def test_an_unknown_query_is_refused() -> None:
    async with network() as net:
        result = await net.peer.call(query_args("probe.nothing", {}), client=net.client)
        assert failure(result) == ("refused", "unknown_function")
