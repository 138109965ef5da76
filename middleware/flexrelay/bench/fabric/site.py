"""One organisation's gateway on a Fabric network with the contracts, founded: for figures of the real path."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from flexrelay.bench.fabric.ground import ORG, description, network
from flexrelay.founding import GATEWAY, MarketClock, found, identity_in, private_collections
from flexrelay.identity import Wallet, sign_intent
from flexrelay.identity.signer import Signer
from flexrelay.ledger.fabric import FabricLedger, Limits
from flexrelay.ledger.port import Call, Checkpoint, Validation
from flexrelay.ledgers import FabricHost
from flexrelay.network import Network
from flexrelay_sdk.clock import wall_ms

NETWORK: Final = "bench"
LIFETIME_MS: Final = 600_000


@dataclass(frozen=True, slots=True)
class Site:
    """`ledger` is the gateway's connection, `signer` its key; `ground` the processes."""

    ground: Network
    ledger: FabricLedger
    signer: Signer

    async def intent(self, function: str, args: dict[str, Any], intent_id: str) -> bytes:
        return await sign_intent(self.signer, NETWORK, function, args, wall_ms() + LIFETIME_MS, intent_id)

    async def commit(self, function: str, args: dict[str, Any], intent_id: str) -> float:
        """Seconds from the signed intent to its block. Raises RuntimeError when it is not valid."""
        intent = await self.intent(function, args, intent_id)
        height = await self.ledger.height()
        began = time.perf_counter()
        prepared = await self.ledger.prepare(Call(intent))
        await self.ledger.submit(prepared.envelope)
        async for item in self.ledger.events(Checkpoint(height)):
            if item.tx_id == prepared.tx_id:
                if item.validation is not Validation.VALID:
                    raise RuntimeError(f"{function} was judged {item.validation.value}")
                break
        return time.perf_counter() - began


@asynccontextmanager
async def founded(**changes: Any) -> AsyncIterator[Site]:
    """A site on a network of its own; `changes` of its description."""
    members = private_collections([ORG])
    collections = {name: {"orgs": list(orgs)} for name, orgs in members.items()}
    contract = {"name": "flexrelay", "module": "flexrelay.bench.fabric.contract", "collections": collections}
    with network(description([contract], **changes)) as ground:
        await asyncio.to_thread(ground.start, f"flexrelay.{ORG}")
        with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
            wallet = Wallet(Path(folder), SecretStr("bench"))
            gateway = identity_in(wallet, NETWORK, "gateway", GATEWAY)
            profile = await asyncio.to_thread(ground.gateway_profile, ORG, GATEWAY, gateway.operation.key)
            async with AsyncExitStack() as founding:
                host = FabricHost(founding, {ORG: profile})
                await found(host, NETWORK, {ORG: wallet}, MarketClock(), ORG)
            signer = wallet.signer(gateway.did)
            async with FabricLedger.open(profile, signer, limits=Limits(in_flight=128)) as ledger:
                yield Site(ground, ledger, signer)
