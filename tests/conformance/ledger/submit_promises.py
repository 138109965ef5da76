"""From prepare to a known outcome: what is left behind by what, and what a second submission does."""

import asyncio
import contextlib

import pytest
from conformance.ledger.harness import Network, fresh, outcome, wall_ms

from flexrelay.ledger.port import Call, Committed, LedgerError, NotFound, Rejected, Validation
from flexrelay_contracts.refusal import Refused

VALID = Validation.VALID


class SubmitPromises:
    async def test_preparing_orders_nothing(self, net: Network) -> None:
        key, ledger = fresh(), net.connect("dso")
        prepared = await net.prepare(ledger, "probe.put", key=key, value="v")
        await net.run("probe.put", key=fresh(), value="other")
        assert await ledger.status(prepared.tx_id) == NotFound(prepared.tx_id)
        assert await net.get(key) is None

    async def test_the_result_is_the_functions(self, net: Network) -> None:
        key = fresh()
        prepared = await net.prepare(net.connect("dso"), "probe.put", key=key, value="v")
        assert prepared.result == {"written": key}

    async def test_a_refusal_leaves_nothing_and_names_the_field(self, net: Network) -> None:
        key, ledger = fresh(), net.connect("dso")
        intent_id = fresh()
        with pytest.raises(Refused) as caught:
            await ledger.prepare(Call(net.intent("probe.write_then_refuse", intent_id=intent_id, key=key)))
        assert (caught.value.code, caught.value.message, caught.value.field) == ("no", "the contract says no", "key")
        last = await net.run("probe.put", key=fresh(), value="v")
        assert await net.get(key) is None
        events = [event.name for item in await net.take_to(last.tx_id) for event in item.events]
        assert "never" not in events
        again = await ledger.prepare(Call(net.intent("probe.put", intent_id=intent_id, key=key, value="v")))
        assert (await net.commit(ledger, again)).validation is VALID

    async def test_a_defect_in_a_contract_is_a_refusal_and_the_ledger_goes_on(self, net: Network) -> None:
        key = fresh()
        with pytest.raises(Refused):
            await net.prepare(net.connect("dso"), "probe.write_then_fail", key=key)
        await net.run("probe.put", key=fresh(), value="v")
        assert await net.get(key) is None

    async def test_an_empty_value_is_refused(self, net: Network) -> None:
        with pytest.raises(Refused):
            await net.prepare(net.connect("dso"), "probe.put_empty", key=fresh())

    async def test_a_write_after_a_paged_query_is_refused(self, net: Network) -> None:
        with pytest.raises(Refused):
            await net.prepare(net.connect("dso"), "probe.page_then_write", key=fresh())

    async def test_a_passed_deadline_is_refused(self, net: Network) -> None:
        intent = net.intent("probe.put", deadline_ms=-1, key=fresh(), value="v")
        with pytest.raises(Refused) as caught:
            await net.connect("dso").prepare(Call(intent))
        assert caught.value.code == "expired"

    async def test_a_timestamp_beyond_the_guard_is_refused(self, net: Network) -> None:
        for shift in (-3 * net.spec.guard_ms, 3 * net.spec.guard_ms):
            ledger = net.connect("dso", clock=lambda shift=shift: wall_ms() + shift)  # type: ignore[misc] # default
            intent = net.intent("probe.put", deadline_ms=10 * net.spec.guard_ms, key=fresh(), value="v")
            with pytest.raises((Refused, Rejected)):
                await ledger.prepare(Call(intent))

    async def test_a_transaction_carries_its_gateways_time_and_identity(self, net: Network) -> None:
        stamp = wall_ms() - net.spec.guard_ms // 2
        ledger = net.connect("agga", clock=lambda: stamp)
        prepared = await net.prepare(ledger, "probe.about")
        creator = {"org": "agga", "identity": net.identity("agga")}
        assert prepared.result == {"tx_id": prepared.tx_id, "tx_time": stamp, "creator": creator}
        await net.commit(ledger, prepared)
        assert (await net.take_to(prepared.tx_id))[-1].timestamp == stamp

    async def test_too_large_an_envelope_is_refused_and_nothing_is_left(self, net: Network) -> None:
        key, ledger = fresh(), net.connect("dso")
        intent = net.intent("probe.put", key=key, value="x" * net.spec.max_envelope_bytes)
        with pytest.raises(LedgerError):
            await net.commit(ledger, await ledger.prepare(Call(intent)))
        await net.run("probe.put", key=fresh(), value="v")
        assert await net.get(key) is None

    async def test_an_envelope_submitted_again_applies_once(self, net: Network) -> None:
        key, ledger = fresh(), net.connect("dso")
        prepared = await net.prepare(ledger, "probe.add", key=key, value="1")
        await asyncio.gather(*(_try(net, prepared.envelope) for _ in range(3)))
        first = await outcome(ledger, prepared.tx_id, seconds=net.patience_s)
        await _try(net, prepared.envelope)
        last = await net.run("probe.put", key=fresh(), value="v")
        assert await ledger.status(prepared.tx_id) == first
        assert first.validation is VALID
        assert await net.get(key) == "1"
        items = [item for item in await net.take_to(last.tx_id) if item.tx_id == prepared.tx_id]
        assert [item.validation for item in items].count(VALID) == 1
        assert items[0].validation is VALID
        assert {item.validation for item in items[1:]} <= {Validation.DUPLICATE_TXID}

    async def test_the_status_says_where_the_transaction_stands(self, net: Network) -> None:
        ledger = net.connect("dso")
        prepared = await net.prepare(ledger, "probe.put", key=fresh(), value="v")
        committed = await net.commit(ledger, prepared)
        assert committed == Committed(prepared.tx_id, committed.block, VALID)
        event = (await net.take_to(prepared.tx_id))[-1]
        assert (event.block, event.validation) == (committed.block, VALID)
        assert await net.connect("aggb").status(prepared.tx_id) == committed

    async def test_an_unknown_outcome_is_cleared_by_asking_and_submitting_again(self, net: Network) -> None:
        ledger = net.connect("dso")
        for number in range(10):
            key = fresh()
            prepared = await net.prepare(ledger, "probe.add", key=key, value="1")
            task = asyncio.create_task(ledger.submit(prepared.envelope))
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()  # the caller does not learn whether it was ordered
            with contextlib.suppress(asyncio.CancelledError):
                await task
            if isinstance(await ledger.status(prepared.tx_id), NotFound):
                await _try(net, prepared.envelope)
            found = await outcome(ledger, prepared.tx_id, seconds=net.patience_s)
            assert found.validation is VALID
            assert await net.get(key) == "1"

    async def test_a_changed_envelope_never_becomes_valid(self, net: Network) -> None:
        key, ledger = fresh(), net.connect("dso")
        prepared = await net.prepare(ledger, "probe.put", key=key, value="v")
        size = len(prepared.envelope)
        for position in sorted({0, 2, 10, 70, 99, *range(100, size, size // 16), size - 1}):
            changed = bytearray(prepared.envelope)
            changed[position] ^= 1
            with contextlib.suppress(LedgerError):
                await ledger.submit(bytes(changed))
        for part in (b"", prepared.envelope[: size // 2], prepared.envelope + b"x"):
            with contextlib.suppress(LedgerError):
                await ledger.submit(part)
        await net.run("probe.put", key=fresh(), value="v")
        assert await net.get(key) is None
        assert (await net.commit(ledger, prepared)).validation is VALID

    async def test_the_contracts_policy_is_enforced(self, net: Network) -> None:
        ledger = net.connect("dso")
        intent = net.intent("strict.put", key=fresh(), value="v")
        alone = await ledger.prepare(Call(intent, endorsing_orgs=("dso",)))
        assert (await net.commit(ledger, alone)).validation is Validation.ENDORSEMENT_POLICY_FAILURE
        assert (await net.commit(ledger, await ledger.prepare(Call(intent)))).validation is VALID

    async def test_a_keys_policy_is_enforced(self, net: Network) -> None:
        key, ledger = fresh(), net.connect("dso")
        await net.run("probe.put", key=key, value="1")
        await net.run("probe.policy", key=key, orgs=["agga", "aggb"])
        for function, args in (("probe.put", {"value": "2"}), ("probe.delete", {}), ("probe.policy", {"orgs": []})):
            intent = net.intent(function, key=key, **args)
            alone = await ledger.prepare(Call(intent, endorsing_orgs=("dso", "agga")))
            assert (await net.commit(ledger, alone)).validation is Validation.ENDORSEMENT_POLICY_FAILURE
        intent = net.intent("probe.put", key=key, value="3")
        both = await ledger.prepare(Call(intent, endorsing_orgs=("agga", "aggb")))
        assert (await net.commit(ledger, both)).validation is VALID
        await net.run("probe.put", key=key, value="4")
        alone = await ledger.prepare(Call(net.intent("probe.put", key=key, value="5"), endorsing_orgs=("dso",)))
        assert (await net.commit(ledger, alone)).validation is Validation.ENDORSEMENT_POLICY_FAILURE
        assert await net.get(key) == "4"

    async def test_a_keys_policy_may_leave_a_choice(self, net: Network) -> None:
        key, ledger = fresh(), net.connect("dso")
        await net.run("probe.put", key=key, value="1")
        await net.run("probe.policy", key=key, orgs=["dso"], one_of=["agga", "aggb"])
        for endorsers in (("dso",), ("agga", "aggb")):
            intent = net.intent("probe.put", key=key, value="2")
            some = await ledger.prepare(Call(intent, endorsing_orgs=endorsers))
            assert (await net.commit(ledger, some)).validation is Validation.ENDORSEMENT_POLICY_FAILURE
        for number, other in enumerate(("agga", "aggb")):
            intent = net.intent("probe.put", key=key, value=str(number))
            both = await ledger.prepare(Call(intent, endorsing_orgs=("dso", other)))
            assert (await net.commit(ledger, both)).validation is VALID
        await net.run("probe.put", key=key, value="5")  # without a hint enough organisations endorse
        assert await net.get(key) == "5"


async def _try(net: Network, envelope: bytes) -> None:
    """Submit where a ledger may answer that it has the envelope already."""
    with contextlib.suppress(LedgerError):
        await net.connect("dso").submit(envelope)
