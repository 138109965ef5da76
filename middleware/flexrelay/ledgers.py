"""The ledgers that a site can hold, by the configuration's `ledger.kind`."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Never

from flexrelay.config import Config, ConfigError
from flexrelay.ledger.embedded import EmbeddedLedger
from flexrelay.ledger.late import LateLedger
from flexrelay.ledger.port import (
    BlockView,
    Committed,
    GatewaySigner,
    Ledger,
    LedgerError,
    LedgerHost,
    LedgerUnavailable,
    NeedsAttention,
)

if TYPE_CHECKING:
    from flexrelay.ledger.fabric import FabricLedger
    from flexrelay.ledger.fabric.verify import Report

_LOG = logging.getLogger(__name__)
_FIRST_RETRY_S: Final = 0.5
_LONGEST_RETRY_S: Final = 5.0
_SURE: Final = 3
_SURE_S: Final = 15.0
"""So often in a row, and for so long, a network that has just begun to answer must be found wrong: a peer that is
starting does not know its channel for a moment."""


class _AtOnce:
    """What a host has that need not wait for anybody: a connection is there, and cannot turn out wrong."""

    async def connect(self, org: str, signer: GatewaySigner) -> Ledger:
        raise NotImplementedError

    async def connect_later(self, org: str, signer: GatewaySigner) -> Ledger:
        return await self.connect(org, signer)

    async def failing(self) -> Never:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


class EmbeddedHost(_AtOnce):
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
        self._late: dict[str, LateLedger] = {}
        self._wrong: asyncio.Future[Never] = asyncio.get_running_loop().create_future()

    @property
    def trouble(self) -> str:
        away = [late.why for late in self._late.values() if late.why]
        return next((why for why in (*away, *(ledger.trouble for ledger in self._open.values())) if why), "")

    async def connect(self, org: str, signer: GatewaySigner) -> Ledger:
        return await self._connection(org, signer)

    async def connect_later(self, org: str, signer: GatewaySigner) -> Ledger:
        if org in self._late:
            return self._late[org]
        try:
            return await self._connection(org, signer)
        except LedgerUnavailable as error:
            if isinstance(error, NeedsAttention):
                raise
            late = self._late[org] = LateLedger(org, str(error))
            _LOG.warning("%s's gateway starts without a ledger: %s; trying on", org, error)
        trying = asyncio.create_task(self._try_on(late, signer), name=f"fabric-late-{org}")
        self._stack.push_async_callback(_ended, trying)
        return late

    async def failing(self) -> Never:
        await asyncio.shield(self._wrong)
        raise AssertionError("it has no result")

    async def _try_on(self, late: LateLedger, signer: GatewaySigner) -> None:
        """Until the network answers; then hold the connection until this is cancelled."""
        wait_s, wrong, since = _FIRST_RETRY_S, 0, 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))  # noqa: S311 (jitter)
            wait_s = min(2 * wait_s, _LONGEST_RETRY_S)
            try:
                async with self._opening(late.org, signer) as ledger:
                    self._open[late.org] = ledger
                    late.arrived(ledger)
                    _LOG.warning("the ledger has answered %s's gateway", late.org)
                    await asyncio.Event().wait()
            except LedgerError as error:
                sure = not isinstance(error, LedgerUnavailable) or isinstance(error, NeedsAttention)
                wrong, since = (wrong + 1, since if wrong else loop.time()) if sure else (0, 0.0)
                if wrong >= _SURE and loop.time() - since >= _SURE_S:
                    self._ends(error)
                    return
                late.why = str(error)
            except Exception as error:
                self._ends(error)
                raise

    def _ends(self, error: Exception) -> None:
        if not self._wrong.done():
            self._wrong.set_exception(error)
            self._wrong.exception()  # it may be that nobody waits for it

    async def identity(self, org: str, signer: GatewaySigner) -> str:
        return (await self._connection(org, signer)).identity

    async def _connection(self, org: str, signer: GatewaySigner) -> "FabricLedger":
        if org not in self._open:
            self._open[org] = await self._stack.enter_async_context(self._opening(org, signer))
        return self._open[org]

    def _opening(self, org: str, signer: GatewaySigner) -> AbstractAsyncContextManager["FabricLedger"]:
        with fabric_installed():
            from flexrelay.ledger.fabric import FabricLedger, load_profile
        profile = load_profile(self._profiles[org])
        return FabricLedger.open(profile, None if profile.identity.key else signer)

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


async def _ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class UnaskedHost(_AtOnce):
    """No ledger: for whoever looks at what gateways have stored, while another process has the ledger."""

    trouble = ""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def connect(self, org: str, signer: GatewaySigner) -> Ledger:
        return LateLedger(org, "what is stored is looked at only")

    async def identity(self, org: str, signer: GatewaySigner) -> str:
        raise self._unasked()

    async def height(self) -> int:
        raise self._unasked()

    async def block(self, number: int) -> BlockView:
        raise self._unasked()

    @staticmethod
    def _unasked() -> LedgerUnavailable:
        return LedgerUnavailable("what is stored is looked at only, no ledger is asked")


@contextmanager
def fabric_installed() -> Iterator[None]:
    """Around the import of what only Fabric needs. Raises ConfigError."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"ledger.kind: 'fabric' needs a package that is not installed ({error}): install flexrelay[fabric]"
        ) from None


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
