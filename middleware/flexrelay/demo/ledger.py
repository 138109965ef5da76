"""The demo's ledger: a file of this process, or a native Fabric network of the three organisations."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, Literal

from flexrelay.demo.cast import DSO, Progress
from flexrelay.founding import GATEWAY, MarketClock, found, genesis, identity_in, private_collections
from flexrelay.identity import Wallet
from flexrelay.ledger.embedded import EmbeddedLedger
from flexrelay.ledgers import EmbeddedHost, FabricHost
from flexrelay.network import Channel, Collection, Contract, Network, Organisation, Policy, Spec, ensure
from flexrelay.network.spec import BlockCut

LedgerKind = Literal["embedded", "fabric"]

BLOCKS_KEPT: Final = 100_000
"""Private values go after so many blocks, long after the last dispute; what is settled is purged before."""

_EMBEDDED = '[ledger]\nkind = "embedded"\nfolder = "ledger"\n'


@asynccontextmanager
async def founded(
    kind: LedgerKind,
    folder: Path,
    network: str,
    wallets: Mapping[str, Wallet],
    make_clock: Callable[[], MarketClock],
    progress: Progress,
    fabric: str = "3.1",
) -> AsyncIterator[str]:
    """Found the network; yields the configuration's `[ledger]` section. A Fabric network runs until the block ends.

    The market clock is made when the ledger is there: what a network needs to come up is not taken from its lead.
    """
    async with AsyncExitStack() as stack:
        if kind == "embedded":
            async with EmbeddedLedger.open(folder / "ledger", genesis(network, wallets)) as ledger:
                await found(EmbeddedHost(ledger), network, wallets, make_clock(), DSO)
            yield _EMBEDDED
            return
        profiles = await stack.enter_async_context(_fabric(folder / "fabric", network, wallets, fabric, progress))
        async with AsyncExitStack() as founding:
            await found(FabricHost(founding, profiles), network, wallets, make_clock(), DSO)
        yield _section(folder, profiles)


def _section(folder: Path, profiles: Mapping[str, Path]) -> str:
    """The configuration of gateways with these profiles, below `folder`, which may be named from where one stands."""
    lines = [f'{org} = "{path.relative_to(folder.absolute())}"' for org, path in sorted(profiles.items())]
    return '[ledger]\nkind = "fabric"\n\n[ledger.profiles]\n' + "\n".join(lines) + "\n"


def description(network: str, orgs: Mapping[str, Wallet], fabric: str) -> Spec:
    """The organisations' Fabric network: one orderer, one channel, one contract that two organisations endorse."""
    names = tuple(sorted(orgs))
    contract = Contract(
        name="flexrelay",
        policy=Policy(orgs=names, required=2),
        collections={
            name: Collection(orgs=tuple(members), block_to_live=BLOCKS_KEPT)
            for name, members in private_collections(names).items()
        },
    )
    return Spec(
        name=network,
        fabric="2.5" if fabric == "2.5" else "3.1",
        organisations=tuple(Organisation(name=name) for name in names),
        channels=(Channel(name="market", block=BlockCut(timeout_ms=100)),),
        contracts=(contract,),
    )


@asynccontextmanager
async def _fabric(
    folder: Path, network: str, wallets: Mapping[str, Wallet], fabric: str, progress: Progress
) -> AsyncIterator[dict[str, Path]]:
    """A running network; yields each organisation's connection profile, whose key is its gateway's in the wallet."""
    spec = description(network, wallets, fabric)
    progress(f"Fabric {fabric}: programs (the first time they are built, about two minutes)")
    binaries = await asyncio.to_thread(ensure, spec.fabric)
    ground = Network(spec, folder, binaries, lambda text: progress(f"Fabric {fabric}: {text}"))
    try:
        await asyncio.to_thread(ground.up)
        profiles = {}
        for org, wallet in sorted(wallets.items()):
            key = identity_in(wallet, network, "gateway", GATEWAY).operation.key
            profiles[org] = await asyncio.to_thread(ground.gateway_profile, org, GATEWAY, key)
        yield profiles
    finally:
        await asyncio.to_thread(ground.down)
