"""What a transaction reads, and what becomes of it when the state has moved on."""

from typing import Any

from conformance.ledger.harness import Network, fresh

from flexrelay.ledger.port import Call, Validation
from flexrelay_contracts.refusal import Refused

VALID = Validation.VALID
MVCC = Validation.MVCC_READ_CONFLICT
PHANTOM = Validation.PHANTOM_READ_CONFLICT


class StatePromises:
    async def test_own_writes_are_invisible(self, net: Network) -> None:
        prepared = await net.prepare(net.connect("dso"), "probe.put_and_read", key=fresh(), value="new")
        assert prepared.result == {"seen": None, "in_range": 0}

    async def test_a_commit_is_visible_to_every_organisation(self, net: Network) -> None:
        key = fresh()
        await net.run("probe.put", key=key, value="v", org="agga")
        for org in net.spec.orgs:
            assert await net.connect(org).evaluate("probe.get", {"key": key}) == "v"

    async def test_a_delete_is_visible(self, net: Network) -> None:
        key = fresh()
        await net.run("probe.put", key=key, value="v")
        await net.run("probe.delete", key=key)
        assert await net.get(key) is None

    async def test_read_modify_write_twice_from_one_state_applies_once(self, net: Network) -> None:
        key, ledger = fresh(), net.connect("dso")
        await net.run("probe.add", key=key, value="10")
        first = await net.prepare(ledger, "probe.add", key=key, value="1")
        second = await net.prepare(net.connect("agga"), "probe.add", key=key, value="5")
        assert (await net.commit(ledger, first)).validation is VALID
        assert (await net.commit(ledger, second)).validation is MVCC
        assert await net.get(key) == "11"

    async def test_a_read_of_an_absent_key_conflicts_with_its_creation(self, net: Network) -> None:
        key, out, ledger = fresh(), fresh(), net.connect("dso")
        prepared = await net.prepare(ledger, "probe.copy", key=key, value=out)
        await net.run("probe.put", key=key, value="v")
        assert (await net.commit(ledger, prepared)).validation is MVCC
        assert await net.get(out) is None

    async def test_a_read_conflicts_with_a_write_of_the_same_value(self, net: Network) -> None:
        key, out, ledger = fresh(), fresh(), net.connect("dso")
        await net.run("probe.put", key=key, value="same")
        prepared = await net.prepare(ledger, "probe.copy", key=key, value=out)
        await net.run("probe.put", key=key, value="same")
        assert (await net.commit(ledger, prepared)).validation is MVCC

    async def test_blind_writes_do_not_conflict(self, net: Network) -> None:
        key, ledger = fresh(), net.connect("dso")
        prepared = [await net.prepare(ledger, "probe.put", key=key, value=str(n)) for n in range(5)]
        outcomes = [await net.commit(ledger, item) for item in prepared]
        assert [item.validation for item in outcomes] == [VALID] * 5
        assert await net.get(key) == "4"

    async def test_a_conflicted_intent_can_be_prepared_again_and_is_then_used(self, net: Network) -> None:
        key, ledger = fresh(), net.connect("dso")
        intent = net.intent("probe.add", key=key, value="1")
        held_back = await ledger.prepare(Call(intent))
        await net.run("probe.add", key=key, value="1")
        assert (await net.commit(ledger, held_back)).validation is MVCC
        assert (await net.commit(ledger, await ledger.prepare(Call(intent)))).validation is VALID
        assert await net.get(key) == "2"
        assert await _refusal(net, intent) == "intent_used"

    async def test_two_envelopes_of_one_intent_apply_once(self, net: Network) -> None:
        key, ledger = fresh(), net.connect("dso")
        intent = net.intent("probe.put", key=key, value="v")
        first, second = await ledger.prepare(Call(intent)), await net.connect("agga").prepare(Call(intent))
        assert first.tx_id != second.tx_id
        assert (await net.commit(ledger, first)).validation is VALID
        assert (await net.commit(ledger, second)).validation is MVCC

    async def test_inserting_into_a_range_that_was_read_conflicts(self, net: Network) -> None:
        assert await self._disturb(net, "probe.put", {"key": "b2", "value": "v"}) is PHANTOM

    async def test_deleting_from_a_range_that_was_read_conflicts(self, net: Network) -> None:
        assert await self._disturb(net, "probe.delete", {"key": "b"}) is PHANTOM

    async def test_changing_inside_a_range_that_was_read_conflicts(self, net: Network) -> None:
        assert await self._disturb(net, "probe.put", {"key": "b", "value": "other"}) is PHANTOM

    async def test_the_end_of_a_range_is_not_in_it(self, net: Network) -> None:
        assert await self._disturb(net, "probe.put", {"key": "d", "value": "v"}) is VALID

    async def test_a_range_read_in_part_is_protected_in_that_part(self, net: Network) -> None:
        assert await self._disturb(net, "probe.put", {"key": "a2", "value": "v"}, limit=2) is PHANTOM
        beyond = await self._disturb(net, "probe.put", {"key": "b2", "value": "v"}, limit=2)
        assert beyond in (VALID, PHANTOM)  # a ledger reads ahead: what was read is protected at least

    async def test_an_empty_range_is_protected(self, net: Network) -> None:
        prefix, out, ledger = fresh(), fresh(), net.connect("dso")
        prepared = await net.prepare(ledger, "probe.count", start=prefix, end=prefix + "z", out=out)
        await net.run("probe.put", key=prefix + "a", value="v")
        assert (await net.commit(ledger, prepared)).validation is PHANTOM

    async def test_ranges_are_ordered_by_the_bytes_of_the_keys(self, net: Network) -> None:
        prefix = fresh()
        tails = ["", "\x00", "a", "z", "é", "\uffff", "\U00010000", "\U0010fffe"]
        items = [{"key": prefix + tail, "value": "v"} for tail in reversed(tails)]
        await net.run("probe.put_many", items=items)
        found = await net.connect("dso").evaluate("probe.range", {"start": prefix, "end": prefix + "\U0010ffff"})
        assert [key.removeprefix(prefix) for key, _ in found] == tails

    async def test_pages_cover_a_range_once(self, net: Network) -> None:
        prefix, ledger = fresh(), net.connect("dso")
        keys = [f"{prefix}{n:02}" for n in range(7)]
        await net.run("probe.put_many", items=[{"key": key, "value": "v"} for key in keys])
        seen: list[str] = []
        bookmark = ""
        while True:
            args = {"start": prefix, "end": prefix + "z", "size": 3, "bookmark": bookmark}
            page = await ledger.evaluate("probe.page", args)
            assert 0 < len(page["keys"]) <= 3
            seen += page["keys"]
            bookmark = page["bookmark"]
            if not bookmark:
                break
        assert seen == keys

    async def _disturb(self, net: Network, function: str, args: dict[str, Any], limit: int = 0) -> Validation:
        """Read [a, d) with a, b, c in it, commit something, then submit."""
        prefix, ledger = fresh(), net.connect("dso")
        await net.run("probe.put_many", items=[{"key": prefix + name, "value": "v"} for name in "abc"])
        spread = {"start": prefix + "a", "end": prefix + "d", "out": fresh(), "limit": limit}
        prepared = await net.prepare(ledger, "probe.count", **spread)
        assert prepared.result == {"count": limit or 3}
        await net.run(function, **{**args, "key": prefix + args["key"]})
        return (await net.commit(ledger, prepared)).validation


async def _refusal(net: Network, intent: bytes) -> str:
    try:
        await net.connect("dso").prepare(Call(intent))
    except Refused as refused:
        return refused.code
    return ""
