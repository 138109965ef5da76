"""One peer as it is looked at from outside: its height, its blocks, its answers. Nothing here is checked."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flexrelay.ledger.fabric import deliver
from flexrelay.ledger.fabric.channel import PeerChannel
from flexrelay.ledger.fabric.gateway import Gateway
from flexrelay.ledger.fabric.identity import Identity
from flexrelay.ledger.fabric.profile import Profile
from flexrelay_contracts.invocation import query_args
from flexrelay_schemas.canonical import parse


@dataclass(frozen=True, slots=True)
class PeerView:
    """Raises LedgerError in all its calls; never another peer's answer."""

    profile: Profile
    peer: PeerChannel
    identity: Identity
    gateway: Gateway
    clock: Callable[[], int]

    @property
    def name(self) -> str:
        return f"{self.peer.address} of {self.peer.org}"

    async def height(self) -> int:
        return await self.gateway.height(self.peer)

    def blocks(self, start: int, stop: int) -> AsyncGenerator[Any, None]:
        """The blocks from `start` to `stop`."""
        return deliver.blocks(self.peer, self.identity, self.profile.channel, start, stop, self.clock())

    async def query(self, name: str, args: Mapping[str, Any]) -> Any:
        """A query. Raises Refused too."""
        data = query_args(name, args)
        return parse(await self.gateway.executed(self.peer, self.profile.chaincode, data, self.clock()))
