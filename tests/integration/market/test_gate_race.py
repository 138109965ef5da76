"""An order that is prepared before the gate and let go after it, on the real embedded ledger."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.chain import Chain, wall_ms
from support.contracts import MemoryLedger
from support.local_market import PRODUCT, local_product
from support.network import Network, plain_days

from flexrelay.ledger.embedded import Connection
from flexrelay.ledger.port import Call, Checkpoint, Prepared, Validation
from flexrelay_contracts.refusal import Refused

POINT, HOME = "cp-1", "c1"
GATE_MS = 240_000
"""Until the gate closes, by a clock that the tests put forward: no machine is too slow for what comes before."""


@dataclass
class Clock:
    """The ledger's and the gateway's."""

    ahead_ms: int = 0

    def __call__(self) -> int:
        return wall_ms() + self.ahead_ms

    def put_forward(self, to_ms: int) -> None:
        self.ahead_ms += max(0, to_ms - self())


@dataclass
class Desk:
    """One actor in all roles, on a ledger of its own: what is tested is the order of commits, not who may do what."""

    chain: Chain
    ledger: Connection

    async def prepare(self, function: str, args: Mapping[str, Any]) -> Prepared:
        return await self.ledger.prepare(Call(self.chain.intent(function, args)))

    async def submit(self, prepared: Prepared) -> Validation:
        """How the ledger judged it."""
        await self.ledger.submit(prepared.envelope)
        async for tx in self.ledger.events(Checkpoint()):
            if tx.tx_id == prepared.tx_id:
                return tx.validation
        raise AssertionError("events ended")

    async def do(self, function: str, /, **args: Any) -> Mapping[str, Any]:
        prepared = await self.prepare(function, args)
        assert await self.submit(prepared) is Validation.VALID
        return prepared.result

    def order(self, auction: str, order_id: str) -> dict[str, Any]:
        return {
            "auction": auction,
            "order_id": order_id,
            "side": "buy",
            "connection": HOME,
            "energy_j": 3_600_000,
            "price_nano_eur_per_wh": 1000,
        }


async def open_auction(desk: Desk, gate_in_ms: int) -> tuple[str, int]:
    """(auction, instant at which its gate closes): the product's gate lies `gate_in_ms` from now."""
    operator, now = desk.chain.operator, wall_ms()
    issuer = Network(MemoryLedger(now=now), operator, {}, {})
    for role in ("dso", "brp", "prosumer"):
        await desk.do("grants.enrol", credential=issuer.credential(operator, role))
    first = (datetime.now(UTC) - timedelta(days=2)).date().isoformat()
    days = plain_days(first, 5)
    await desk.do("calendar.publish", days=[day.model_dump() for day in days])
    day = next(day for day in days if day.start < now + 1_800_000 <= day.end)
    isp = day.isp_closed_by(now + 1_800_000)
    data = {
        "connection": {"congestion_point": POINT, "dso": operator.did, "owner": operator.did},
        "brp": {"brp": operator.did},
    }
    for kind, values in data.items():
        record = {"kind": kind, "connection": HOME, "valid_from": first, "valid_to": "", "data": values}
        await desk.do("masterdata.record", **record)
    await desk.do("accounts.fund", account=f"actor:{operator.did}", micro_eur=10**9, reference="")
    offset_s = (now + gate_in_ms - day.bounds(isp)[0]) // 1000
    document = local_product(
        buyer_role="prosumer",
        gate_opening={"relative_to": "isp", "offset_s": -86_400},
        gate_closure={"relative_to": "isp", "offset_s": offset_s},
    )
    await desk.do("products.publish", document=document)
    opened = await desk.do(
        "local_energy.open",
        product=PRODUCT,
        congestion_point=POINT,
        date=day.date,
        isp_from=isp,
        isp_to=isp,
        headroom_w=10**6,
    )
    return str(opened["auction"]), int(opened["closes_at"])


async def test_an_order_held_back_over_the_gate_dies(tmp_path: Path) -> None:
    chain, clock = Chain.at(tmp_path), Clock()
    async with chain.open(clock=clock) as ledger:
        desk = Desk(chain, ledger)
        auction, closes = await open_auction(desk, GATE_MS)
        await desk.do("local_energy.order", **desk.order(auction, "in-time"))
        held = await desk.prepare("local_energy.order", desk.order(auction, "held-back"))
        with pytest.raises(Refused) as early:
            await desk.prepare("local_energy.close_gate", {"auction": auction})
        assert early.value.code == "gate_open"
        clock.put_forward(closes + 10)
        with pytest.raises(Refused) as late:
            await desk.prepare("local_energy.order", desk.order(auction, "late"))
        assert late.value.code == "gate_closed"
        await desk.do("local_energy.close_gate", auction=auction)
        assert await desk.submit(held) is Validation.MVCC_READ_CONFLICT
        await desk.do("local_energy.clear", auction=auction)
        await desk.do("local_energy.settle", auction=auction)
        assert list(await ledger.evaluate("local_energy.orders", {"auction": auction})) == ["in-time"]
        balances = await ledger.evaluate("accounts.balances", {})
        assert balances["sum_micro_eur"] == 0
        assert {item["account"]: item["micro_eur"] for item in balances["accounts"]} == {
            "external": -(10**9),
            f"actor:{chain.operator.did}": 10**9,
        }


async def test_an_order_that_races_with_the_closing_is_cleared_or_dies(tmp_path: Path) -> None:
    """Both are let go at once: whoever wins, what the ledger shows as standing is what is cleared."""
    chain, clock = Chain.at(tmp_path), Clock()
    async with chain.open(clock=clock) as ledger:
        desk = Desk(chain, ledger)
        auction, closes = await open_auction(desk, GATE_MS)
        held = await desk.prepare("local_energy.order", desk.order(auction, "held-back"))
        clock.put_forward(closes + 10)
        closing = await desk.prepare("local_energy.close_gate", {"auction": auction})
        first, second = await asyncio.gather(desk.submit(held), desk.submit(closing))
        assert second is Validation.VALID  # an order only reads the status key: it never delays the gate
        await desk.do("local_energy.clear", auction=auction)
        stands = list(await ledger.evaluate("local_energy.orders", {"auction": auction}))
        assert stands == (["held-back"] if first is Validation.VALID else [])
        await desk.do("local_energy.settle", auction=auction)
        assert (await ledger.evaluate("accounts.balances", {}))["sum_micro_eur"] == 0
