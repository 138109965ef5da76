"""A peer's services on loopback with the blocks that a test gives it: honest, or not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio

from flexrelay.ledger.fabric import messages as pb
from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.profile import Peer


class BlockServer:
    """Serves `blocks` and what is added to them; `sends` is how many of them streams get (the rest is held back)."""

    def __init__(self, org: str, blocks: list[Any]) -> None:
        self.org = org
        self.blocks = blocks
        self.sends = 1 << 30
        self.asked_from: list[int] = []
        self.endorsed = 0
        self.answer = (200, "")
        """Status and message of what it executes itself."""
        self.refusal: bytes | None = None
        """The google.rpc.Status with which it refuses to endorse, and with `refuses_queries` to answer."""
        self.refuses_queries = False
        self.running = self.most_running = 0
        self.answer_s = 0.0
        self._more = asyncio.Event()

    def add(self, block: Any) -> None:
        self.blocks.append(block)
        more, self._more = self._more, asyncio.Event()
        more.set()

    async def deliver(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        envelope = pb.Envelope.FromString(await anext(aiter(requests)))
        seek = pb.SeekInfo.FromString(pb.Payload.FromString(envelope.payload).data)
        number, stop = seek.start.specified.number, seek.stop.specified.number
        self.asked_from.append(number)
        while number <= stop:
            while number >= min(len(self.blocks), self.sends):
                await self._more.wait()
            yield pb.DeliverResponse(block=self.blocks[number]).SerializeToString()
            number += 1
        yield pb.DeliverResponse(status=200).SerializeToString()

    async def evaluate(self, request: bytes, context: Any) -> bytes:
        """The chain's height, whatever is asked, after `answer_s`."""
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.answer_s)
        finally:
            self.running -= 1
        if self.refuses_queries:
            return await self._refuse(context)
        info = pb.BlockchainInfo(height=len(self.blocks)).SerializeToString()
        data: bytes = pb.EvaluateResponse(result={"status": 200, "payload": info}).SerializeToString()
        return data

    async def execute(self, request: bytes, context: Any) -> bytes:
        """As `evaluate`, without its delay: not by the gateway, by the peer itself."""
        info = pb.BlockchainInfo(height=len(self.blocks)).SerializeToString()
        status, message = self.answer
        response = {"status": status, "message": message, "payload": info}
        data: bytes = pb.ProposalResponse(response=response).SerializeToString()
        return data

    async def endorse(self, request: bytes, context: Any) -> bytes:
        """Counts, and never endorses."""
        self.endorsed += 1
        if self.refusal is not None:
            return await self._refuse(context)
        return await context.abort(grpc.StatusCode.UNAVAILABLE, "no chaincode here")  # type: ignore[no-any-return]

    async def _refuse(self, context: Any) -> bytes:
        context.set_trailing_metadata((("grpc-status-details-bin", self.refusal),))
        return await context.abort(grpc.StatusCode.ABORTED, "see the details")  # type: ignore[no-any-return]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[PeerChannel]:
        async with self.listening() as port:
            channel = PeerChannel(Peer(org=self.org, endpoint=f"127.0.0.1:{port}"), 0, None)
            try:
                yield channel
            finally:
                await channel.close()

    @asynccontextmanager
    async def listening(self, port: int = 0, tls: grpc.ServerCredentials | None = None) -> AsyncIterator[int]:
        """The port on which it listens, with or without TLS."""
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "protos.Deliver", {"Deliver": grpc.stream_stream_rpc_method_handler(self.deliver)}
                ),
                grpc.method_handlers_generic_handler(
                    "protos.Endorser", {"ProcessProposal": grpc.unary_unary_rpc_method_handler(self.execute)}
                ),
                grpc.method_handlers_generic_handler(
                    "gateway.Gateway",
                    {
                        "Evaluate": grpc.unary_unary_rpc_method_handler(self.evaluate),
                        "Endorse": grpc.unary_unary_rpc_method_handler(self.endorse),
                    },
                ),
            )
        )
        address = f"127.0.0.1:{port}"
        bound = server.add_secure_port(address, tls) if tls else server.add_insecure_port(address)
        await server.start()
        try:
            yield bound
        finally:
            await server.stop(None)
