"""The peer's stream of full blocks."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc.aio

from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.errors import AccessDenied, Untrusted
from flexrelay.ledger.fabric.failures import Failure
from flexrelay.ledger.fabric.identity import Identity
from flexrelay.ledger.fabric.messages import Envelope
from flexrelay.ledger.fabric.proposal import seek_payload
from flexrelay.ledger.port import LedgerUnavailable

_FORBIDDEN = 403
_SUCCESS = 200


async def blocks(
    peer: PeerChannel, identity: Identity, channel: str, start: int, stop: int | None, now_ms: int
) -> AsyncGenerator[Any, None]:
    """Blocks `start` to `stop` (None: for ever) as the peer has them; nothing is checked.

    Raises AccessDenied, and LedgerUnavailable when the stream breaks.
    """
    identity.renew()  # who only follows asks nothing else by which a new certificate would be noticed
    payload = seek_payload(channel, identity.creator, now_ms, start, stop, peer.tls_hash)
    call = peer.deliver()
    try:
        await call.write(Envelope(payload=payload, signature=await identity.sign(payload)))
        await call.done_writing()
        async for response in call:
            if response.HasField("block"):
                yield response.block
            elif response.status == _SUCCESS:
                return
            elif response.status == _FORBIDDEN:
                raise AccessDenied(
                    f"peer {peer.address} gives no blocks of channel {channel} to this gateway: check that its "
                    "organisation is a member, and that its certificate is neither expired nor revoked"
                )
            else:
                raise LedgerUnavailable(f"peer {peer.address} ended the stream of blocks with status {response.status}")
        raise LedgerUnavailable(f"peer {peer.address} ended the stream of blocks")
    except grpc.aio.AioRpcError as error:
        raise LedgerUnavailable(Failure.of(error, peer.address).text()) from None
    except (grpc.aio.UsageError, asyncio.InvalidStateError) as error:  # the stream broke before the request was written
        raise LedgerUnavailable(f"peer {peer.address}: the stream of blocks did not begin: {error}") from None
    finally:
        call.cancel()


async def one_block(peer: PeerChannel, identity: Identity, channel: str, number: int, now_ms: int) -> Any:
    """Block `number`; nothing else of it is checked. Raises Untrusted for another one, and as `blocks`."""
    async with aclosing(blocks(peer, identity, channel, number, number, now_ms)) as found:
        async for block in found:
            if block.header.number != number:
                raise Untrusted(f"block {block.header.number} came where block {number} was asked for")
            return block
    raise LedgerUnavailable(f"peer {peer.address} has no block {number}")
