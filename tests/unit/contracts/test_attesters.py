"""Whose word counts for a device that cannot sign, and that nobody anchors what is still to come."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.contracts import Party
from support.network import Network
from support.refusals import refused
from unit.contracts.test_disputes import Case
from unit.contracts.test_evidence import Story, attested, check, entrust, proof_of, signed, stated
from unit.contracts.test_identity import apply

from flexrelay.config import IngestConfig
from flexrelay.ingest import Limits
from flexrelay_contracts import gateways, masterdata
from flexrelay_contracts.identity import suspend
from flexrelay_schemas.evidence import InclusionProof
from flexrelay_schemas.reading import FUTURE_TOLERANCE_MS

SECOND = 1000


@pytest.fixture
def net() -> Network:
    return Network.start()


def withdraw(net: Network, actor: Party, org: str) -> None:
    net.call(actor, "gateways.withdraw", gateway=net.gateways[org].did)


def word(net: Network, device: Party, org: str, form: int = 2, at: int = 0) -> bytes:
    """A reading that the organisation's gateway attests, observed now."""
    observed = at or net.market_ms
    return stated(device, observed) if form == 2 else attested(device, net.gateways[org], observed)


def asked(net: Network, proof: InclusionProof, device: Party, at: int, **named: Any) -> Any:
    return net.ask(
        "evidence.attester", org=proof.org, anchor_id=proof.anchor_id, device=device.did, observed_at=at, **named
    )


@pytest.mark.parametrize("form", [1, 2])
class TestTheControllersGrant:
    def test_a_gateway_that_was_never_entrusted_with_the_device(self, net: Network, form: int) -> None:
        meter, at = net.device(net.actor()), net.market_ms
        strangers = proof_of(net, meter, word(net, meter, "agg-b", form), "agg-b")
        with refused("not_entrusted", "org"):
            check(net, strangers)
        net.ledger.now += SECOND
        entrust(net, meter, "agg-b")  # what was anchored before stays a stranger's word
        with refused("not_entrusted", "org"):
            check(net, strangers)
        told = asked(net, strangers, meter, at)
        assert (told["gateway"], told["counts"], told["code"]) == (net.gateways["agg-b"].did, False, "not_entrusted")
        own = proof_of(net, meter, word(net, meter, "dso", form))
        assert check(net, own)["signer"] == net.gateways["dso"].did
        assert asked(net, own, meter, at)["counts"]
        assert not asked(net, own, meter, at, gateway=net.gateways["agg-a"].did)["counts"]

    def test_what_was_anchored_before_a_withdrawal_goes_on_counting_what_comes_later_does_not(
        self, net: Network, form: int
    ) -> None:
        owner = net.actor()
        meter = net.device(owner)
        entrust(net, meter, "agg-b")
        net.ledger.now += SECOND
        story = Story(net, "agg-b")
        before, *_ = story.anchor([(meter.did, [word(net, meter, "agg-b", form)])], "before")
        net.ledger.now += SECOND
        withdraw(net, owner, "agg-b")
        after, *_ = story.anchor([(meter.did, [word(net, meter, "agg-b", form)])], "after")
        net.ledger.now += SECOND
        assert check(net, before)
        with refused("not_entrusted"):
            check(net, after)
        entrust(net, meter, "agg-b")
        again, *_ = story.anchor([(meter.did, [word(net, meter, "agg-b", form)])], "again")
        entrust(net, meter, "agg-b")  # said twice: it is granted since the first time
        assert check(net, before) and check(net, again)
        with refused("not_entrusted"):
            check(net, after)


def test_a_meters_own_signature_needs_nobodys_trust(net: Network) -> None:
    meter = net.device(net.actor())
    assert check(net, proof_of(net, meter, signed(meter, net.market_ms), "agg-b"))["did"] == meter.did


def test_who_is_nobodys_device_is_attested_by_nobody(net: Network) -> None:
    stranger = Party.new("device", net.operator.did)
    with refused("unknown_did", "window.device"):
        check(net, proof_of(net, stranger, stated(stranger, net.market_ms)))
    actor = net.actor()
    with refused("not_entrusted"):  # an actor measures nothing, and has no controller
        check(net, proof_of(net, actor, stated(actor, net.market_ms), "agg-a"))


class TestTheSystemOperatorsGrant:
    """The DSO answers for the meters of the connections on its grid, whoever controls them."""

    def test_of_the_connection_that_the_meter_is_behind(self, net: Network) -> None:
        dso, other = net.actor("dso", org="dso"), net.actor("dso", org="agg-a")
        owner = net.actor(org="agg-b")
        meter = net.connection("c1", dso=dso, owner=owner, meter=True).meter
        net.connection("c2", dso=other, owner=owner, congestion_point="cp-2")
        assert meter is not None
        payload = stated(meter, net.market_ms)
        for org in ("dso", "agg-b"):
            assert check(net, proof_of(net, meter, payload, org))["signer"] == net.gateways[org].did
        with refused("not_entrusted"):
            check(net, proof_of(net, meter, payload, "agg-a"))

    def test_only_for_the_days_on_which_it_was_there(self, net: Network) -> None:
        dso, owner = net.actor("dso", org="dso"), net.actor(org="agg-b")
        meter = net.connection("c1", dso=dso, owner=owner, meter=True).meter
        assert meter is not None
        net.to(net.day("2016-05-21").start)
        net.call(
            dso, "masterdata.record", kind="meter", connection="c1", valid_from="2016-05-12", valid_to="2016-05-20",
            data={"device": meter.did}, supersede=True,
        )  # fmt: skip
        midnight = net.day("2016-05-20").start  # which ends the last day
        proofs = Story(net).anchor([(meter.did, [stated(meter, at) for at in (midnight, midnight + 1)])])
        assert check(net, proofs[0])
        with refused("not_entrusted"):
            check(net, proofs[1])

    def test_a_day_outside_of_the_calendar_has_no_operator(self, net: Network) -> None:
        dso, owner = net.actor("dso", org="dso"), net.actor(org="agg-b")
        meter = net.connection("c1", dso=dso, owner=owner, meter=True).meter
        assert meter is not None
        for at in (0, net.day("2016-05-12").start - 1):
            with refused("not_entrusted"):
                check(net, Story(net).anchor([(meter.did, [stated(meter, at)])], f"a{at}")[0])


class TestTheDeviceItself:
    """A gateway's word replaces the device's signature, not its being there."""

    def test_a_device_that_was_deactivated_is_not_attested_past_that(self, net: Network) -> None:
        owner = net.actor()
        meter = net.device(owner)
        net.ledger.now += SECOND
        last = net.market_ms - 1
        net.call(owner, "identity.deactivate", did=meter.did)
        proofs = Story(net).anchor([(meter.did, [stated(meter, at) for at in (last, last + 1)])])
        assert check(net, proofs[0])["observed_at"] == last
        with refused("device_not_counted", "payload.observed_at"):
            check(net, proofs[1])

    def test_a_suspension_counts_while_it_lasts(self, net: Network) -> None:
        ledger, owner = net.ledger, net.actor()
        meter = net.device(owner)
        ledger.now += SECOND
        suspended = net.market_ms
        apply(net, lambda ctx: suspend(ctx, meter.did, "equivocation"))
        instants = (suspended - 1, suspended)
        before, during = Story(net).anchor([(meter.did, [stated(meter, at) for at in instants])])
        ledger.now += SECOND
        net.rotate(meter, carrier=owner)
        for step in ("suspended", "reinstated", "deactivated"):
            if step == "reinstated":
                net.call(net.operator, "identity.reinstate", did=meter.did)
            elif step == "deactivated":
                net.call(owner, "identity.deactivate", did=meter.did)
            assert check(net, before)
            if step == "suspended":
                with refused("device_not_counted"):
                    check(net, during)
            else:
                assert check(net, during)
            ledger.now += SECOND

    def test_suspended_rotated_and_then_deactivated(self, net: Network) -> None:
        owner = net.actor()
        meter = net.device(owner)
        net.ledger.now += SECOND
        suspended = net.market_ms
        apply(net, lambda ctx: suspend(ctx, meter.did, "equivocation"))
        net.ledger.now += SECOND
        net.rotate(meter, carrier=owner)
        net.ledger.now += SECOND
        net.call(owner, "identity.deactivate", did=meter.did)
        instants = (suspended - 1, suspended, suspended + SECOND - 1, net.market_ms)
        before, *since = Story(net).anchor([(meter.did, [stated(meter, at) for at in instants])])
        assert check(net, before)
        for proof in since:
            with refused("device_not_counted"):
                check(net, proof)

    def test_nor_before_it_was_registered_and_a_rotation_leaves_no_gap(self, net: Network) -> None:
        before = net.market_ms - 1
        meter = net.device(net.actor())
        net.ledger.now += SECOND
        rotated = net.market_ms
        net.rotate(meter)
        instants = (before, before + 1, rotated - 1, rotated)
        proofs = Story(net).anchor([(meter.did, [stated(meter, at) for at in instants])])
        for proof in proofs[1:]:
            assert check(net, proof)
        with refused("device_not_counted"):
            check(net, proofs[0])


class TestBeforeItsTime:
    @pytest.mark.parametrize("form", [0, 1, 2])
    def test_nobody_anchors_what_is_still_to_come(self, net: Network, form: int) -> None:
        meter = net.device(net.actor())
        latest = net.market_ms + FUTURE_TOLERANCE_MS
        made = [signed(meter, at) if form == 0 else word(net, meter, "dso", form, at) for at in (latest, latest + 1)]
        proofs = Story(net).anchor([(meter.did, made)])
        assert check(net, proofs[0])["observed_at"] == latest
        with refused("anchored_too_early", "payload.observed_at"):
            check(net, proofs[1])

    def test_the_market_clock_decides(self) -> None:
        net = Network.start(rate=(3600, 1))
        meter = net.device(net.actor())
        hour = signed(meter, net.market_ms + 3_600_000)
        with refused("anchored_too_early"):
            check(net, proof_of(net, meter, hour))
        net.ledger.now += 1 * SECOND
        assert check(net, Story(net).anchor([(meter.did, [hour])], "later")[0])

    def test_it_is_the_tolerance_of_ingest(self) -> None:
        assert IngestConfig().future_tolerance_s * 1000 == Limits().future_ms == FUTURE_TOLERANCE_MS


class TestNetworksFromBeforeTheRule:
    def test_go_on_as_they_were(self) -> None:
        net = without_rule()
        assert "entrusted_attesters" not in net.ask("network.show")
        owner = net.actor()
        meter = net.device(owner)
        proof = proof_of(net, meter, stated(meter, net.market_ms), "agg-b")
        assert check(net, proof)["signer"] == net.gateways["agg-b"].did
        assert asked(net, proof, meter, net.market_ms)["counts"]

    def test_and_their_grants_are_written_as_ever(self) -> None:
        """Or a chain that was made by an earlier release would not come out the same when it is executed again."""
        net = without_rule()
        owner = net.actor()
        withdraw(net, owner, "dso")
        net.ledger.now -= SECOND  # a client's clock
        for _ in range(2):
            net.home[owner.did] = "dso"
            net.call(owner, "gateways.grant", gateway=net.gateways["dso"].did)
            (grant,) = net.ask("gateways.granted", gateway=net.gateways["dso"].did, controller=owner.did)
            assert (grant["status"], grant["since_ms"]) == ("active", net.ledger.now)
            net.ledger.now += SECOND
        assert not [name for name in net.ledger.state if "gateway_grant_ended" in name]

    def test_the_rule_is_of_the_genesis(self, net: Network) -> None:
        assert net.ask("network.show")["entrusted_attesters"] is True


def without_rule() -> Network:
    class Old(Network):
        def genesis(self, **options: Any) -> dict[str, Any]:
            return {name: value for name, value in super().genesis(**options).items() if name != "entrusted_attesters"}

    return Old.start()


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["grant", "withdraw", "anchor"]), st.integers(-3, 9)), max_size=14))
def test_an_anchor_counts_when_the_grant_stood_at_its_instant(steps: Sequence[tuple[str, int]]) -> None:
    """Against a list of what was said: also where clients' clocks go back a little, nothing counts twice or is lost."""
    net = Network.start(days=0)
    owner = net.actor()
    meter = net.device(owner)
    story, proofs = Story(net, "agg-b"), []
    spans: list[list[int]] = []  # [from, to) or [from] while it lasts
    for number, (step, ms) in enumerate(steps):
        net.ledger.now += ms
        now = net.ledger.now
        lasting = bool(spans) and len(spans[-1]) == 1
        if step == "anchor":
            (proof,) = story.anchor([(meter.did, [stated(meter, net.market_ms)])], f"a{number}")
            proofs.append((now, proof))
        elif step == "grant":
            entrust(net, meter, "agg-b")
            if not lasting:
                spans.append([max(now, spans[-1][1]) if spans else now])
        elif lasting:
            withdraw(net, owner, "agg-b")
            spans[-1].append(max(now, spans[-1][0]))
    for at, proof in proofs:
        stood = any(span[0] <= at and (len(span) == 1 or at < span[1]) for span in spans)
        assert asked(net, proof, meter, at)["counts"] is stood


def test_many_ended_grants_cost_one_look(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that grants and withdraws all day makes nobody's dispute dear."""
    owner = net.actor()
    meter = net.device(owner)
    strangers = proof_of(net, meter, stated(meter, net.market_ms), "agg-b")
    for _ in range(40):
        net.ledger.now += SECOND
        entrust(net, meter, "agg-b")
        net.ledger.now += SECOND
        withdraw(net, owner, "agg-b")
    looked: list[str] = []
    scan = gateways.scan

    def counted(*args: Any, **options: Any) -> Any:
        for item in scan(*args, **options):
            looked.append(args[1])
            yield item

    monkeypatch.setattr(gateways, "scan", counted)
    with refused("not_entrusted"):
        check(net, strangers)
    assert looked == ["gateway_grant_ended"]


class TestInADispute:
    def test_a_third_organisations_word_decides_nothing(self) -> None:
        """A's gateway claims readings of a meter that B's actor controls, behind a connection of the DSO."""
        case = Case()
        ours = case.proofs("agg-a", case.claimed, attested=2)
        case.propose()
        verdict = case.decide(ours, None)
        assert case.codes(verdict) == ("unresolved", "not_entrusted", "no_evidence")
        assert verdict["line"]["actual_j"] == case.proposed
        case.finish()

    def test_it_does_not_answer_for_the_gateway_that_was_entrusted(self) -> None:
        case = Case()
        ours = case.proofs("agg-b", case.claimed, attested=2)
        theirs = case.proofs("agg-a", case.proposed, attested=2)
        case.propose()
        assert case.codes(case.decide(ours, theirs)) == ("challenger", "counts", "not_entrusted")
        case.finish()

    def test_the_operators_word_stands_against_the_controllers(self) -> None:
        """Who controls the meter withdraws nothing from the DSO, and wins nothing by its own word alone."""
        case = Case()
        ours = case.proofs("agg-b", case.claimed, attested=2)
        theirs = case.proofs("dso", case.proposed, attested=2)
        case.propose()
        assert case.codes(case.decide(ours, theirs)) == ("unresolved", "counts", "counts")
        case.finish()

    def test_many_claims_upon_the_meter_make_no_dispute_dear(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The DSO says that the meter was behind a connection of its own on each of many days long past, and shows its
        gateway's word: nothing of that is looked at."""
        case = Case()
        market = case.market
        meter = market.connections["b1"].meter
        assert meter is not None
        for day in range(1, 21):
            name, first, last = f"x{day}", f"1990-01-{day:02d}", f"1990-01-{day + 1:02d}"
            place = {"congestion_point": "elsewhere", "dso": market.dso.did, "owner": market.dso.did}
            for kind, data in (("connection", place), ("meter", {"device": meter.did})):
                market.net.call(
                    market.dso, "masterdata.record", kind=kind, connection=name, valid_from=first, valid_to=last,
                    data=data,
                )  # fmt: skip
        ours = case.proofs("agg-b", case.claimed)
        theirs = case.proofs("dso", case.proposed, attested=2)
        case.propose()
        looked: list[tuple[str, ...]] = []
        scan = masterdata.scan

        def counted(ctx: Any, *where: str) -> Any:
            looked.append(where)
            return scan(ctx, *where)

        monkeypatch.setattr(masterdata, "scan", counted)
        assert case.codes(case.decide(ours, theirs)) == ("challenger", "counts", "counts")
        assert set(looked) == {("masterdata", "connection", "b1", "-")}

    def test_a_reading_from_before_its_time_is_no_evidence(self) -> None:
        case = Case()
        case.market.net.to(case.market.bounds(49)[1] - FUTURE_TOLERANCE_MS - 1)
        early = case.proofs("agg-b", case.claimed)
        case.market.net.to(case.market.day.end)
        case.propose()
        assert case.codes(case.decide(early, None)) == ("unresolved", "anchored_too_early", "no_evidence")
        case.finish()
