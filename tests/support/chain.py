"""One organisation on a real embedded ledger with the real contracts, in a folder that processes can be killed over.

The keys lie in the folder, so that every process that opens it is the same operator and gateway.
"""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ec

from flexrelay.ledger.embedded import BlockCutting, Connection, EmbeddedLedger, Genesis, Organisation, key_identifier
from flexrelay.ledger.port import Call
from flexrelay_schemas.did import Create
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.keys import multikey
from support.contracts import Party, sign

ORG, NETWORK = "dso", "test"


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class Signer:
    party: Party

    @property
    def did(self) -> str:
        return self.party.did

    @property
    def key_version(self) -> int:
        return self.party.version

    @property
    def public_key(self) -> str:
        return multikey(self.party.private.public_key())

    async def sign(self, message: bytes, /) -> bytes:
        return b64u_decode(sign(self.party.private, message))


@dataclass
class Chain:
    folder: Path
    operator: Party
    gateway: Party

    @classmethod
    def at(cls, folder: Path) -> Self:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "parties.json"
        if not path.exists():
            made = {"operator": Party.new("actor", network=NETWORK), "gateway": Party.new("gateway", network=NETWORK)}
            path.write_text(json.dumps({name: _stored(party) for name, party in made.items()}))
        stored = json.loads(path.read_text())
        return cls(folder, _loaded(stored["operator"]), _loaded(stored["gateway"]))

    @asynccontextmanager
    async def open(self, **options: Any) -> AsyncIterator[Connection]:
        signer = Signer(self.gateway)
        genesis = Genesis(
            network=NETWORK,
            organisations=(Organisation(name=ORG, gateways=(signer.public_key,)),),
            block_cutting=BlockCutting(timeout_ms=5),
        )
        async with EmbeddedLedger.open(self.folder / "ledger", genesis, **options) as self.ledger:
            connection = self.ledger.connect(ORG, signer)
            if await self.ledger.height() < 2:
                await self._bootstrap(connection)
            yield connection

    def intent(self, function: str, args: Mapping[str, Any], *, life_ms: int = 600_000, name: str = "") -> bytes:
        """Signed by the operator, who is the market operator too."""
        return self.operator.intent(function, args, deadline=wall_ms() + life_ms, intent_id=name)

    def fund(self, account: str, micro_eur: int, name: str, *, life_ms: int = 600_000) -> bytes:
        return self.intent("accounts.fund", {"account": account, "micro_eur": micro_eur}, name=name, life_ms=life_ms)

    async def sign_void(self, function: str, args: Mapping[str, Any], deadline: int) -> bytes:
        return self.gateway.intent(function, args, deadline=deadline)

    async def _bootstrap(self, connection: Connection) -> None:
        now = wall_ms()
        arguments = {
            "network": NETWORK,
            "simulation": False,
            "clock": {"wall_ms": now, "market_ms": now},
            "operator": self.operator.proven(),
            "organisations": [ORG],
            "gateways": [
                {
                    **self.gateway.proven(),
                    "org": ORG,
                    "identity": key_identifier(Signer(self.gateway).public_key),
                }
            ],
            "entrusted_attesters": True,
            "point_operators": True,
        }
        prepared = await connection.prepare(Call(self.intent("network.bootstrap", arguments)))
        await connection.submit(prepared.envelope)


def _stored(party: Party) -> dict[str, Any]:
    assert isinstance(party.private, ec.EllipticCurvePrivateKey)
    return {"private": hex(party.private.private_numbers().private_value), "operation": party.operation.model_dump()}


def _loaded(stored: Mapping[str, Any]) -> Party:
    private = ec.derive_private_key(int(stored["private"], 16), ec.SECP256R1())
    operation = Create.model_validate(stored["operation"])
    return Party(operation.kind, private, ec.generate_private_key(ec.SECP256R1()), operation)
