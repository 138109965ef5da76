"""The ledgers that a site can hold, by the configuration's `ledger.kind`."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flexrelay.config import Config, ConfigError
from flexrelay.ledger.embedded import EmbeddedLedger
from flexrelay.ledger.port import BlockView, Committed, GatewaySigner, Ledger, LedgerHost, LedgerUnavailable

if TYPE_CHECKING:
    from flexrelay.ledger.fabric import FabricLedger
    from flexrelay.ledger.fabric.verify import Report


class EmbeddedHost:
    """The ledger file of this process."""

    kind = "embedded"

    def __init__(self, ledger: EmbeddedLedger) -> None:
        self._ledger = ledger

    @property
    def trouble(self) -> str:
        return self._ledger.trouble

    async def connect(self, org: str, signer: GatewaySigner) -> Ledger:
        return self._ledger.connect(org, signer)

    async def identity(self, org: str, signer: GatewaySigner) -> str:
        return self._ledger.connect(org, signer).identity

    async def height(self) -> int:
        return await self._ledger.height()

    async def block(self, number: int) -> BlockView:
        return await self._ledger.block(number)


class FabricHost:
    """Connections to a Fabric network, one per organisation; blocks are read through the first.

    A profile that names a key file signs with it; one with a certificate alone is for the gateway's key in the wallet.
    """

    kind = "fabric"

    def __init__(self, stack: AsyncExitStack, profiles: Mapping[str, Path]) -> None:
        self._stack = stack
        self._profiles = profiles
        self._open: dict[str, FabricLedger] = {}

    @property
    def trouble(self) -> str:
        return next((ledger.trouble for ledger in self._open.values() if ledger.trouble), "")

    async def connect(self, org: str, signer: GatewaySigner) -> Ledger:
        return await self._connection(org, signer)

    async def identity(self, org: str, signer: GatewaySigner) -> str:
        return (await self._connection(org, signer)).identity

    async def _connection(self, org: str, signer: GatewaySigner) -> "FabricLedger":
        if org not in self._open:
            from flexrelay.ledger.fabric import FabricLedger, load_profile

            profile = load_profile(self._profiles[org])
            opening = FabricLedger.open(profile, None if profile.identity.key else signer)
            self._open[org] = await self._stack.enter_async_context(opening)
        return self._open[org]

    async def height(self) -> int:
        return await self._reader().height()

    async def block(self, number: int) -> BlockView:
        return await self._reader().block(number)

    async def find(self, tx_id: str) -> int | None:
        """The block in which a transaction stands."""
        found = await self._reader().status(tx_id)
        return found.block if isinstance(found, Committed) else None

    async def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> "Report":
        """Recompute the channel from block 0; `progress` is told (blocks done, blocks in all)."""
        from flexrelay.ledger.fabric.verify import verify

        return await verify(self._reader(), progress=progress)

    def _reader(self) -> "FabricLedger":
        for ledger in self._open.values():
            return ledger
        raise LedgerUnavailable("no gateway is connected to the Fabric network yet")


@asynccontextmanager
async def open_ledger(folder: Path, config: Config) -> AsyncIterator[LedgerHost]:
    """The ledger that the data folder's configuration names. Raises ConfigError, LedgerLocked."""
    if config.ledger.kind == "fabric":
        profiles = {org: folder / path for org, path in config.ledger.profiles.items()}
        for org, path in profiles.items():
            if not path.is_file():
                raise ConfigError(
                    f"ledger.profiles.{org}: {path} does not exist; it is the connection profile of {org}'s gateway"
                )
        async with AsyncExitStack() as stack:
            yield FabricHost(stack, profiles)
        return
    place = folder / config.ledger.folder
    if not place.is_dir():
        raise ConfigError(f"{place} does not exist: `flexrelay init` founds a network there")
    async with EmbeddedLedger.open(place) as ledger:
        yield EmbeddedHost(ledger)
