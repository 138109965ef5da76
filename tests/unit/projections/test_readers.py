"""A listener hears a block before the tables hold it, a reader when they do."""

from collections.abc import Sequence
from pathlib import Path

from support.site import operator_desk, site

from flexrelay.projections import PROJECTIONS, Event, Projections
from flexrelay.store import Store


async def test_readers_find_in_the_tables_what_they_hear(tmp_path: Path) -> None:
    heard: list[tuple[str, int, str]] = []
    async with site(tmp_path / "site") as opened, Store(tmp_path / "store.db", [PROJECTIONS]) as store:
        gateway = opened.gateways["dso"]

        def listen(events: Sequence[Event]) -> None:
            heard.extend(("listener", projections.block, event.name) for event in events)

        def read(events: Sequence[Event]) -> None:
            heard.extend(("reader", projections.block, event.name) for event in events)
            assert all(event.block <= projections.block for event in events)

        projections = Projections(gateway.ledger, store, "other", listeners=[listen], readers=[read])
        async with projections:
            account = f"actor:{operator_desk(gateway).did}"
            done = await operator_desk(gateway).do("accounts.fund", {"account": account, "micro_eur": 5})
            await projections.reached(done.block)
    names = [(who, name) for who, _, name in heard if name == "accounts.posted"]
    assert names == [("listener", "accounts.posted"), ("reader", "accounts.posted")]
