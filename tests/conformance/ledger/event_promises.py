"""The stream of events: in order, from any checkpoint, at least once, never one left out."""

import asyncio
import itertools

from conformance.ledger.harness import Network, fresh

from flexrelay.ledger.port import Call, Checkpoint, ContractEvent, TxEvents, Validation


class EventPromises:
    async def test_events_come_with_their_payload_in_order(self, net: Network) -> None:
        committed = await net.run("probe.emit", names=["one", "two", "one"])
        item = (await net.take_to(committed.tx_id))[-1]
        assert item.events == tuple(
            ContractEvent(name, f"payload of {name}".encode()) for name in ("one", "two", "one")
        )
        assert (item.block, item.validation) == (committed.block, Validation.VALID)

    async def test_an_invalid_transaction_is_delivered_without_events(self, net: Network) -> None:
        ledger, intent_args = net.connect("dso"), {"names": ["ghost"]}
        intent_id = fresh()
        first, second = [await ledger.prepare(_call(net, "probe.emit", intent_id, intent_args)) for _ in range(2)]
        await net.commit(ledger, first)
        await net.commit(ledger, second)
        item = (await net.take_to(second.tx_id))[-1]
        assert (item.validation, item.events) == (Validation.MVCC_READ_CONFLICT, ())

    async def test_the_order_is_the_order_of_submission(self, net: Network) -> None:
        ledger = net.connect("dso")
        ids = []
        for number in range(20):
            prepared = await net.prepare(ledger, "probe.put", key=fresh(), value=str(number))
            await ledger.submit(prepared.envelope)
            ids.append(prepared.tx_id)
        items = await net.take_to(ids[-1])
        assert [item.tx_id for item in items if item.tx_id in set(ids)] == ids

    async def test_every_checkpoint_resumes_right_after_it(self, net: Network) -> None:
        last = await self._burst(net, 12)
        everything = await net.take_to(last)
        for number, item in enumerate(everything[:-1]):
            assert await net.take_to(last, item.checkpoint) == everything[number + 1 :]
        for item in everything:
            from_block = await net.take_to(last, Checkpoint(item.block))
            assert from_block == [other for other in everything if other.block >= item.block]

    async def test_blocks_are_marked_at_their_last_transaction(self, net: Network) -> None:
        items = await net.take_to(await self._burst(net, 12))
        for item, following in itertools.pairwise(items):
            assert item.last_in_block == (following.block != item.block)
            assert following.block - item.block in (0, 1)

    async def test_a_subscriber_gets_the_past_and_what_happens_while_it_reads(self, net: Network) -> None:
        await self._burst(net, 10)
        seen: list[TxEvents] = []
        enough = asyncio.Event()

        async def follow() -> None:
            async for item in net.connect("aggb").events(Checkpoint()):
                seen.append(item)
                if len(seen) >= 31:  # the bootstrap and all bursts
                    enough.set()

        follower = asyncio.create_task(follow())
        last = ""
        for _ in range(2):
            await asyncio.sleep(0.01)
            last = await self._burst(net, 10)
        async with asyncio.timeout(net.patience_s):
            await enough.wait()
        follower.cancel()
        assert seen == await net.take_to(last)
        assert len({item.tx_id for item in seen}) == 31

    async def test_the_state_holds_a_transaction_when_its_event_comes(self, net: Network) -> None:
        ledger = net.connect("dso")
        keys: dict[str, str] = {}
        for _ in range(10):
            key = fresh()
            prepared = await net.prepare(ledger, "probe.put", key=key, value="v")
            keys[prepared.tx_id] = key
            submitted = asyncio.create_task(ledger.submit(prepared.envelope))
            await net.take_to(prepared.tx_id)
            assert await net.get(key) == "v"
            await submitted

    async def _burst(self, net: Network, count: int) -> str:
        """Commit `count` transactions at once; the id of the last one in the ledger's order."""
        ledger = net.connect("dso")
        committed = await asyncio.gather(*(net.run("probe.emit", names=[fresh()]) for _ in range(count)))
        height = max(item.block for item in committed)
        ids = {item.tx_id for item in committed}
        items = await net.take(ledger, Checkpoint(), lambda item: item.block == height and item.last_in_block)
        assert ids <= {item.tx_id for item in items}
        return items[-1].tx_id


def _call(net: Network, function: str, intent_id: str, args: dict[str, object]) -> Call:

    return Call(net.intent(function, intent_id=intent_id, **args))
