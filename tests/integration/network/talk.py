"""Transactions on a native network whose contract is the conformance suite's, by gateways that keep their keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from conformance.ledger.fabric import FabricNetwork
from conformance.ledger.harness import Spec as Suite

from flexrelay.ledger.fabric import FabricLedger, IdentityFiles, load_profile
from flexrelay.ledger.port import Checkpoint
from flexrelay.network import Network, Spec

CONTRACT = "conformance.ledger.contract"


def contract(orgs: Sequence[str], required: int = 1, **fields: Any) -> dict[str, Any]:
    """The suite's contract under the name `flexrelay`, endorsed by `required` of the organisations."""
    policy = {"orgs": list(orgs), "required": required}
    collections = {"everyone": {"orgs": list(orgs)}}
    return {"name": "flexrelay", "module": CONTRACT, "policy": policy, "collections": collections, **fields}


class Talk:
    """The same operator and gateways over restarts of the network."""

    def __init__(self, orgs: Sequence[str]) -> None:
        self._suite = Suite(orgs=tuple(orgs), collections={})
        self._keys = FabricNetwork(self._suite, {})
        self._founded = False

    @asynccontextmanager
    async def open(self, native: Network, channel: str | None = None) -> AsyncIterator[FabricNetwork]:
        """Connected by every gateway; the contract's first transaction is written when it is not."""
        talk = FabricNetwork(self._suite, {})
        talk.operator, talk.gateways, talk.began = self._keys.operator, self._keys.gateways, Checkpoint()
        async with AsyncExitStack() as stack:
            talk.ledgers = {}
            for org, gateway in talk.gateways.items():
                path = native.folder.root / f"{org}-gateway.pem"
                path.write_bytes(native.enrol(org, "talk", gateway.public_key))
                profile = load_profile(native.profile(org, channel))
                profile = profile.model_copy(update={"identity": IdentityFiles(certificate=str(path))})
                talk.ledgers[org] = await stack.enter_async_context(FabricLedger.open(profile, gateway))
            if not self._founded:
                await talk.bootstrap()
                self._founded = True
            yield talk


def described(native: Network, **changes: Any) -> Spec:
    """The network's description with other parts."""
    return Spec.model_validate({**native.spec.model_dump(mode="json"), **changes})
