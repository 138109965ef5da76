"""A chaincode server with the conformance suite's contract, a peer double on it, and an actor that signs."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from support.contracts import Party
from unit.chaincode.peer import Client, PeerDouble, Result

from flexrelay_chaincode.config import ChaincodeConfig
from flexrelay_chaincode.server import ChaincodeServer
from flexrelay_contracts.invocation import decode_failure, query_args, submit_args
from flexrelay_schemas.canonical import parse

PACKAGE = "flexrelay_1:" + "0" * 64


def config(**changes: Any) -> ChaincodeConfig:
    values: dict[str, Any] = {
        "id": PACKAGE,
        "org": "dso",
        "listen": "127.0.0.1:0",
        "contract": "conformance.ledger.contract",
        "call_timeout_s": 60.0,  # for hangs: a test that waits for the deadline has its own
        "collections": {"sealed": ["dso", "agga"], "theirs": ["agga"]},
    }
    return ChaincodeConfig.model_validate(values | changes)


class Network:
    """`peer` and the actor that the conformance contract's bootstrap made."""

    def __init__(self, server: ChaincodeServer, peer: PeerDouble, actor: Party, client: Client) -> None:
        self.server, self.peer, self.actor, self.client = server, peer, actor, client

    def intent(self, function: str, args: Mapping[str, Any]) -> bytes:
        return self.actor.intent(function, args, deadline=now() + 60_000)

    async def submit(self, function: str, args: Mapping[str, Any], **options: Any) -> Result:
        return await self.peer.call(submit_args(self.intent(function, args)), client=self.client, **options)

    async def query(self, name: str, args: Mapping[str, Any], **options: Any) -> Any:
        result = await self.peer.call(query_args(name, args), client=self.client, commit=False, **options)
        assert result.status == 200, result.message
        return parse(result.payload)


def now() -> int:
    return time.time_ns() // 1_000_000


def failure(result: Result) -> tuple[str, str]:
    """(kind, code)"""
    assert result.status == 500
    found = decode_failure(result.message)
    assert found is not None, result.message
    return found.kind, found.code


@asynccontextmanager
async def network(peer: Mapping[str, Any] | None = None, **changes: Any) -> AsyncIterator[Network]:
    client, actor = Client.new(), Party.new()
    async with ChaincodeServer(config(**changes)) as server, PeerDouble(server.address, **(peer or {})) as double:
        found = Network(server, double, actor, client)
        gateway = {"did": actor.did, "key": actor.operation.key, "org": client.org, "identity": client.identity}
        genesis = {"network": "test", "operator": actor.proven(), "gateways": [gateway]}
        if "forward_to" not in changes:
            result = await found.submit("network.bootstrap", genesis)
            assert result.status == 200, result.message
        yield found
