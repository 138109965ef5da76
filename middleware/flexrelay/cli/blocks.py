"""The blocks of a data folder's ledger, the same for every ledger: the embedded one's out of its file, without opening
it; a Fabric channel's over the first gateway's connection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from flexrelay.config import Config, ConfigError
from flexrelay.founding import GATEWAY, wallet_of
from flexrelay.ledger.embedded.blocks import FolderBlocks
from flexrelay.ledger.port import BlockView, LedgerError
from flexrelay.ledgers import FabricHost, open_ledger


class Blocks(Protocol):
    """`rest` is how many bytes stand behind the last whole block of a file."""

    @property
    def rest(self) -> int: ...

    async def height(self) -> int: ...

    async def block(self, number: int) -> BlockView: ...

    async def find(self, tx_id: str) -> int | None:
        """The block of a transaction (of its valid one, where an id was ordered twice)."""
        ...


class _FileBlocks:
    def __init__(self, blocks: FolderBlocks) -> None:
        self._blocks = blocks

    @property
    def rest(self) -> int:
        return self._blocks.rest

    async def height(self) -> int:
        return self._blocks.height

    async def block(self, number: int) -> BlockView:
        return self._blocks.view(number)

    async def find(self, tx_id: str) -> int | None:
        return self._blocks.find(tx_id)


class _ChannelBlocks:
    rest = 0

    def __init__(self, host: FabricHost) -> None:
        self._host = host

    async def height(self) -> int:
        return await self._host.height()

    async def block(self, number: int) -> BlockView:
        return await self._host.block(number)

    async def find(self, tx_id: str) -> int | None:
        return await self._host.find(tx_id)


@asynccontextmanager
async def opened(folder: Path, config: Config) -> AsyncIterator[Blocks]:
    """Raises LedgerError, ConfigError."""
    if config.ledger.kind == "fabric":
        async with connected(folder, config) as host:
            yield _ChannelBlocks(host)
        return
    with FolderBlocks(folder / config.ledger.folder) as blocks:
        yield _FileBlocks(blocks)


@asynccontextmanager
async def connected(folder: Path, config: Config) -> AsyncIterator[FabricHost]:
    """The Fabric network, connected as the configuration's first gateway. Raises LedgerError, ConfigError."""
    org = config.gateways[0].org
    wallet = wallet_of(folder, org, config.passphrase)
    identity = wallet.find(GATEWAY)
    if identity is None:
        raise ConfigError(f"{folder / org / 'keys'} holds no gateway key: `flexrelay init` makes one")
    async with open_ledger(folder, config) as host:
        if not isinstance(host, FabricHost):
            raise LedgerError(f"the ledger in {folder} is no Fabric network")
        await host.connect(org, wallet.signer(identity.did))
        yield host
