"""A street on one transformer with peers, two BRPs, a DSO, a TSO and the local energy product, ready to trade."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flexrelay_schemas.canonical import canonical, parse
from flexrelay_schemas.products import load
from support.contracts import Party
from support.network import Network

DATE = "2016-05-20"
ISP = 50
FUNDS = 100_000_000
PRODUCT = "local-energy-auction"


def local_product(**changes: Any) -> dict[str, Any]:
    """The shipped product with consumers as buyers, negative prices and some fields changed."""
    shipped = parse(canonical(load(PRODUCT).model_dump()))
    tests = {"buyer_role": "consumer", "min_price_nano_eur_per_wh": -500_000, "max_price_nano_eur_per_wh": 500_000}
    return {**shipped, **tests, **changes}


@dataclass
class Street:
    """Connections c1…c4: c1 and c2 are prosumers' (BRP north, south), c3 and c4 consumers' (BRP north, south)."""

    net: Network
    dso: Party
    tso: Party
    brps: dict[str, Party]
    owners: dict[str, Party]

    @classmethod
    def start(cls, **changes: Any) -> "Street":
        net = Network.start()
        dso, tso = net.actor("dso", org="dso"), net.actor("tso", org="dso")
        brps = {name: net.actor("brp", org=org) for name, org in (("north", "agg-a"), ("south", "agg-b"))}
        owners = {}
        for name, role, brp in (
            ("c1", "prosumer", "north"),
            ("c2", "prosumer", "south"),
            ("c3", "consumer", "north"),
            ("c4", "consumer", "south"),
        ):
            owners[name] = net.actor(role, org="agg-a" if brp == "north" else "agg-b")
            net.connection(name, dso=dso, owner=owners[name], brp=brps[brp])
            net.call(
                net.operator, "accounts.fund", account=f"actor:{owners[name].did}", micro_eur=FUNDS, reference=name
            )
            if role == "prosumer":
                cls.qualify(net, dso, name, 1_000_000)
        net.call(net.operator, "products.publish", document=local_product(**changes))
        return cls(net, dso, tso, brps, owners)

    @staticmethod
    def qualify(net: Network, dso: Party, connection: str, max_w: int) -> None:
        net.call(
            dso,
            "portfolio.qualify",
            connection=connection,
            direction="feed_in",
            max_w=max_w,
            valid_from="2016-05-12",
            valid_to="",
        )

    def open(self, *, isp: int = ISP, isp_to: int = 0, headroom_w: int | None = 10**9, fee: int = 0) -> str:
        opened = self.net.call(
            self.dso,
            "local_energy.open",
            product=PRODUCT,
            congestion_point="cp-1",
            date=DATE,
            isp_from=isp,
            isp_to=isp_to or isp,
            headroom_w=headroom_w,
            grid_fee_nano_eur_per_wh=fee,
        )
        self.net.to(max(self.net.market_ms, self.net.day(DATE).bounds(isp)[0] - 86_400_000))
        return str(opened["auction"])

    def order(self, auction: str, order_id: str, side: str, connection: str, wh: int, price: int) -> Mapping[str, Any]:
        return self.net.call(
            self.owners[connection],
            "local_energy.order",
            auction=auction,
            order_id=order_id,
            side=side,
            connection=connection,
            energy_j=wh * 3600,
            price_nano_eur_per_wh=price,
        )

    def close(self, auction: str, isp: int = ISP) -> None:
        self.net.to(self.net.day(DATE).bounds(isp)[0] - 900_000)
        self.net.call(self.dso, "local_energy.close_gate", auction=auction)

    def balances(self) -> dict[str, int]:
        found = self.net.ask("accounts.balances")
        assert found["sum_micro_eur"] == 0
        return {item["account"]: item["micro_eur"] for item in found["accounts"]}

    @contextmanager
    def scratch(self) -> Iterator[None]:
        """What happens inside is undone at the end."""
        ledger = self.net.ledger
        saved = dict(ledger.state), list(ledger.events), ledger.now, copy.deepcopy(ledger.private)
        try:
            yield
        finally:
            ledger.state, ledger.events, ledger.now, ledger.private = saved
