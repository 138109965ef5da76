"""Questions to a peer's system chaincodes: the chain's height, blocks by transaction, configuration, definitions."""

from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.errors import Untrusted
from flexrelay.ledger.fabric.gateway import Gateway
from flexrelay.ledger.fabric.messages import (
    Block,
    BlockchainInfo,
    QueryChaincodeDefinitionArgs,
    QueryChaincodeDefinitionResult,
)
from flexrelay.ledger.fabric.msp import Trust
from flexrelay.ledger.fabric.verification import Consensus, configured
from flexrelay.ledger.port import LedgerError

_NO_TRANSACTION = "no such transaction ID"
_BEFORE_SNAPSHOT = "not available. Ledger bootstrapped from a snapshot"


class System:
    """System chaincode calls on one channel."""

    def __init__(self, channel: str, gateway: Gateway, clock: Callable[[], int]) -> None:
        self._channel = channel
        self._gateway = gateway
        self._clock = clock

    async def height(
        self, peer: PeerChannel | None = None, *, own_only: bool = False, timeout_s: float | None = None
    ) -> int:
        """How many blocks the peer has; without one the first of the pool that answers."""
        args = [b"GetChainInfo", self._channel.encode()]
        data = await self._gateway.evaluate(
            "qscc", args, self._clock(), peer=peer, own_only=own_only, timeout_s=timeout_s
        )
        found: int = _decoded(BlockchainInfo, data).height
        return found

    async def config_block(self, peer: PeerChannel | None = None, *, timeout_s: float | None = None) -> Any:
        return _decoded(Block, await self._ask("cscc", [b"GetConfigBlock", self._channel.encode()], peer, timeout_s))

    async def consensus(self, trust: Trust) -> tuple[int, Consensus]:
        """(number of the channel's newest configuration block, the consensus that it sets)."""
        block = await self.config_block()
        return block.header.number, configured(block, trust)

    async def block_of(self, tx_id: str, *, timeout_s: float | None = None) -> Any | None:
        """The first block that holds the transaction, None when the peer has none: also when its snapshot has the
        transaction, but no block of it."""
        try:
            data = await self._ask("qscc", [b"GetBlockByTxID", self._channel.encode(), tx_id.encode()], None, timeout_s)
        except LedgerError as error:
            if _NO_TRANSACTION in str(error) or _BEFORE_SNAPSHOT in str(error):
                return None
            raise
        block = _decoded(Block, data)
        if not block.header.number:  # nobody signs it: whatever a peer says could stand in it
            raise Untrusted("the peer gave the channel's first block, which holds nobody's transactions", tx_id)
        return block

    async def definition(self, chaincode: str, *, timeout_s: float | None = None) -> Any:
        """The committed definition (version, sequence, approvals). Raises LedgerError when there is none."""
        args = QueryChaincodeDefinitionArgs(name=chaincode).SerializeToString()
        data = await self._ask("_lifecycle", [b"QueryChaincodeDefinition", args], None, timeout_s)
        return _decoded(QueryChaincodeDefinitionResult, data)

    async def _ask(
        self, chaincode: str, args: Sequence[bytes], peer: PeerChannel | None, timeout_s: float | None
    ) -> bytes:
        return await self._gateway.evaluate(chaincode, args, self._clock(), peer=peer, timeout_s=timeout_s)


def _decoded(message: Any, data: bytes) -> Any:
    try:
        return message.FromString(data)
    except DecodeError:
        raise Untrusted(f"a peer's answer cannot be read as {message.DESCRIPTOR.full_name}") from None
