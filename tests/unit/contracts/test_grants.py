"""Role credentials and trusted issuers: what is taken, what is not, and what ends a role."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from support.contracts import MemoryContext, Party
from support.network import YEAR_MS, Network
from support.refusals import refused

from flexrelay_contracts import grants
from flexrelay_schemas.encoding import multibase, multibase_decode


@pytest.fixture
def net() -> Network:
    return Network.start(days=0)


def markets(net: Network, party: Party, role: str) -> frozenset[str]:
    ctx = MemoryContext(net.ledger, "0" * 64, net.ledger.now, net.creators["dso"], {})
    return grants.holds(ctx, party.did, role)


def accredit(net: Network, by: Party, subject: Party, roles: list[str], names: list[str], **dates: int) -> None:
    window = {"nbf": net.ledger.now, "exp": net.ledger.now + YEAR_MS} | dates
    net.call(by, "grants.accredit", subject=subject.did, roles=roles, markets=names, **window)


class TestEnrol:
    @pytest.mark.parametrize("p256", [True, False])
    def test_a_credential_of_a_trusted_issuer_gives_the_role(self, net: Network, p256: bool) -> None:
        issuer, subject = net.actor(p256=p256), net.actor(p256=not p256)
        accredit(net, net.operator, issuer, ["aggregator"], ["*"])
        credential = net.credential(subject, "aggregator", ["congestion"], issuer)
        assert credential["proof"]["cryptosuite"] == ("ecdsa-jcs-2019" if p256 else "eddsa-jcs-2022")
        result = net.call(subject, "grants.enrol", credential=credential)
        assert markets(net, subject, "aggregator") == {"congestion"}
        (held,) = net.ask("grants.list", subject=subject.did)
        assert held["credential_hash"] == result["credential_hash"] and held["issuer"] == issuer.did

    def test_the_issuer_may_enrol_for_its_subject_and_nobody_else(self, net: Network) -> None:
        subject, other = net.actor(), net.actor()
        credential = net.credential(subject, "brp")
        with refused("subject"):
            net.call(other, "grants.enrol", credential=credential)
        net.call(net.operator, "grants.enrol", credential=credential)
        assert markets(net, subject, "brp") == {"*"}

    @pytest.mark.parametrize(
        "change",
        [
            lambda c: c["credentialSubject"].update(role="tso"),
            lambda c: c["credentialSubject"].update(markets=["*", "x"]),
            lambda c: c.update(validUntil="2099-01-01T00:00:00Z"),
            lambda c: c.update(validFrom="2001-01-01T00:00:00Z"),
            lambda c: c["proof"].update(created="2001-01-01T00:00:00Z"),
            lambda c: c["proof"].update(proofValue=flip(c["proof"]["proofValue"])),
            lambda c: c["proof"].update(cryptosuite="eddsa-jcs-2022"),
        ],
    )
    def test_tampering_breaks_the_proof(self, net: Network, change: Callable[[Any], None]) -> None:
        subject = net.actor()
        credential = copy.deepcopy(net.credential(subject, "dso", ["m"]))
        credential = canonical_lists(credential)
        change(credential)
        with refused("credential_signature", "credential.proof"):
            net.call(subject, "grants.enrol", credential=credential)

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            (lambda c: c["type"].append("More"), "credential"),
            (lambda c: c["@context"].append("https://evil.example/"), "credential"),
            (lambda c: c.update(more=1), "credential.more"),
            (lambda c: c["proof"].update(proofPurpose="authentication"), "credential.proof.proofPurpose"),
            (lambda c: c["proof"].update(type="JsonWebSignature2020"), "credential.proof.type"),
            (lambda c: c["proof"].update(created="yesterday"), "credential.proof.created"),
            (lambda c: c.update(validUntil=c["validFrom"]), "credential"),
            (lambda c: c["credentialSubject"].update(role="king"), "credential.credentialSubject.role"),
            (lambda c: c.pop("proof"), "credential.proof"),
        ],
    )
    def test_other_forms_are_refused_by_name(self, net: Network, change: Callable[[Any], None], field: str) -> None:
        subject = net.actor()
        credential = canonical_lists(net.credential(subject, "dso"))
        change(credential)
        with refused("invalid_argument", field):
            net.call(subject, "grants.enrol", credential=credential)

    def test_forged_in_the_issuers_name(self, net: Network) -> None:
        subject, forger = net.actor(), Party.new()
        forged = canonical_lists(net.credential(subject, "dso", issuer=forger))
        for name in ("issuer",):
            forged[name] = net.operator.did
        forged["proof"]["verificationMethod"] = f"{net.operator.did}#v1"
        with refused("credential_signature"):
            net.call(subject, "grants.enrol", credential=forged)

    def test_the_proof_names_a_key_of_the_issuer(self, net: Network) -> None:
        subject = net.actor()
        credential = canonical_lists(net.credential(subject, "dso"))
        for method in (f"{subject.did}#v1", f"{net.operator.did}#key", f"{net.operator.did}#v²"):
            credential["proof"]["verificationMethod"] = method
            with refused("credential_key"):
                net.call(subject, "grants.enrol", credential=credential)

    def test_a_key_that_was_rotated_away_issues_nothing(self, net: Network) -> None:
        subject = net.actor()
        credential = net.credential(subject, "dso")
        net.rotate(net.operator)
        with refused("credential_key"):
            net.call(subject, "grants.enrol", credential=credential)
        net.enrol(subject, "dso")

    def test_dates(self, net: Network) -> None:
        subject, now = net.actor(), net.ledger.now
        for valid in ((now - 2000, now), (now + 1, now + 2000)):
            with refused("credential_dates"):
                net.call(subject, "grants.enrol", credential=net.credential(subject, "dso", valid=valid))
        with refused("credential_dates", "credential.proof.created"):
            net.call(subject, "grants.enrol", credential=net.credential(subject, "dso", created_ms=now + 1))
        net.call(subject, "grants.enrol", credential=net.credential(subject, "dso", valid=(now, now + 2000)))
        net.ledger.now += 1999
        assert markets(net, subject, "dso") == {"*"}
        net.ledger.now += 1
        assert markets(net, subject, "dso") == frozenset()

    def test_roles_are_actors_but_one(self, net: Network) -> None:
        actor = net.actor()
        device, gateway = net.device(actor), net.gateways["dso"]
        for party, role in ((device, "dso"), (gateway, "dso"), (gateway, "device"), (actor, "device")):
            with refused("kind", "credential.credentialSubject.role"):
                net.enrol(party, role)
        net.enrol(device, "device")

    def test_a_role_that_ran_out_opens_no_door(self, net: Network) -> None:
        subject, now = net.actor(), net.ledger.now
        credential = net.credential(subject, "market_operator", valid=(now, now + 1000))
        net.call(subject, "grants.enrol", credential=credential)
        net.ledger.now += 1000
        with refused("role"):
            net.call(subject, "calendar.publish", days=[])

    def test_another_networks_credential(self, net: Network) -> None:
        subject = net.actor()
        credential = canonical_lists(net.credential(subject, "dso"))
        credential["credentialSubject"]["network"] = "elsewhere"
        with refused("wrong_network"):
            net.call(subject, "grants.enrol", credential=credential)

    def test_an_issuer_that_is_unknown_or_ended(self, net: Network) -> None:
        subject, issuer = net.actor(), net.actor()
        with refused("unknown_did", "credential.issuer"):
            net.call(subject, "grants.enrol", credential=net.credential(subject, "brp", issuer=Party.new()))
        accredit(net, net.operator, issuer, ["brp"], ["*"])
        credential = net.credential(subject, "brp", issuer=issuer)
        net.call(issuer, "identity.deactivate", did=issuer.did)
        with refused("did_inactive", "credential.issuer"):
            net.call(subject, "grants.enrol", credential=credential)

    def test_roles_of_several_issuers_stand_side_by_side(self, net: Network) -> None:
        one, other, subject = net.actor(), net.actor(), net.actor()
        accredit(net, net.operator, one, ["aggregator"], ["north"])
        accredit(net, net.operator, other, ["aggregator"], ["south"])
        net.enrol(subject, "aggregator", ["north"], one)
        net.enrol(subject, "aggregator", ["south"], other)
        assert markets(net, subject, "aggregator") == {"north", "south"}
        net.call(one, "grants.revoke", subject=subject.did, role="aggregator")
        assert markets(net, subject, "aggregator") == {"south"}

    def test_older_credentials_are_not_played_back(self, net: Network) -> None:
        subject = net.actor()
        wide = net.credential(subject, "aggregator", ["a", "b"])
        net.ledger.now += 1000
        net.enrol(subject, "aggregator", ["a"])
        with refused("credential_superseded"):
            net.call(subject, "grants.enrol", credential=wide)
        net.ledger.now += 1000
        net.call(net.operator, "grants.revoke", subject=subject.did, role="aggregator", reason="left")
        for old in (wide, net.credential(subject, "aggregator", created_ms=net.ledger.now)):
            with refused("credential_revoked"):
                net.call(subject, "grants.enrol", credential=old)
        net.ledger.now += 1000
        net.enrol(subject, "aggregator", ["b"])
        assert markets(net, subject, "aggregator") == {"b"}

    def test_number_of_issuers_is_bounded(self, net: Network) -> None:
        subject = net.actor()
        for _ in range(grants.MAX_ISSUERS):
            issuer = net.actor()
            accredit(net, net.operator, issuer, ["brp"], ["*"])
            net.enrol(subject, "brp", issuer=issuer)
        with refused("too_many"):
            net.enrol(subject, "brp")


class TestAccreditation:
    def test_only_a_subset_is_passed_on(self, net: Network) -> None:
        tso, dso, aggregator, home = (net.actor() for _ in range(4))
        accredit(net, net.operator, tso, ["dso", "aggregator"], ["north", "south"])
        accredit(net, tso, dso, ["aggregator"], ["north"])
        for roles, names in ((["dso"], ["north"]), (["aggregator"], ["south"]), (["aggregator"], ["*"])):
            with refused("untrusted_issuer"):
                accredit(net, dso, aggregator, roles, names)
            with refused("untrusted_issuer"):
                net.enrol(home, roles[0], names, dso)
        net.enrol(home, "aggregator", ["north"], dso)

    def test_withdrawing_a_link_stops_everything_below_it(self, net: Network) -> None:
        tso, dso, home = (net.actor() for _ in range(3))
        accredit(net, net.operator, tso, ["aggregator"], ["*"])
        accredit(net, tso, dso, ["aggregator"], ["*"])
        net.enrol(home, "aggregator", ["m"], dso)
        net.call(net.operator, "grants.withdraw", subject=tso.did)
        net.ledger.now += 1000
        with refused("untrusted_issuer"):
            net.enrol(home, "aggregator", ["m"], dso)
        assert markets(net, home, "aggregator") == {"m"}  # given when it was good; revoked only by name
        with refused("not_accredited"):
            net.call(net.operator, "grants.withdraw", subject=tso.did)

    def test_the_chain_must_be_in_its_dates_and_active(self, net: Network) -> None:
        issuer, home = net.actor(), net.actor()
        accredit(net, net.operator, issuer, ["brp"], ["*"], exp=net.ledger.now + 5000)
        net.enrol(home, "brp", issuer=issuer)
        net.ledger.now += 5000
        with refused("untrusted_issuer"):
            net.enrol(home, "brp", issuer=issuer)

    def test_circles_and_long_chains_give_no_trust(self, net: Network) -> None:
        ring = [net.actor() for _ in range(3)]
        links = [net.actor() for _ in range(grants.MAX_CHAIN + 1)]
        accredit(net, net.operator, ring[0], ["brp"], ["*"])
        accredit(net, ring[0], ring[1], ["brp"], ["*"])
        accredit(net, ring[1], ring[2], ["brp"], ["*"])
        accredit(net, ring[2], ring[1], ["brp"], ["*"])
        net.call(net.operator, "grants.withdraw", subject=ring[0].did)
        with refused("untrusted_issuer"):
            net.enrol(net.actor(), "brp", issuer=ring[2])
        above = net.operator
        for link in links[: grants.MAX_CHAIN]:
            accredit(net, above, link, ["brp"], ["*"])
            above = link
        with refused("untrusted_issuer"):
            accredit(net, above, links[-1], ["brp"], ["*"])
            net.enrol(net.actor(), "brp", issuer=links[-1])

    def test_a_dense_graph_costs_its_edges(self, net: Network) -> None:
        """Eleven issuers that all accredit one another: 10^8 paths, 110 edges."""
        ring = [net.actor() for _ in range(11)]
        for issuer in ring:
            accredit(net, net.operator, issuer, ["brp"], ["*"])
        for one in ring:
            for other in ring:
                if one is not other:
                    accredit(net, one, other, ["brp"], ["*"])
        for issuer in ring:
            net.call(net.operator, "grants.withdraw", subject=issuer.did)
        with refused("untrusted_issuer"):
            net.enrol(net.actor(), "brp", issuer=ring[0])

    def test_who_may(self, net: Network) -> None:
        issuer, other = net.actor(), net.actor()
        with refused("untrusted_issuer"):
            accredit(net, other, issuer, ["brp"], ["*"])
        with refused("self_accreditation"):
            accredit(net, net.operator, net.operator, ["brp"], ["*"])
        with refused("kind"):
            accredit(net, net.operator, net.gateways["dso"], ["brp"], ["*"])
        with refused("invalid_argument", "exp"):
            accredit(net, net.operator, issuer, ["brp"], ["*"], exp=net.ledger.now)
        accredit(net, net.operator, issuer, ["brp"], ["*"])
        with refused("not_issuer"):
            net.call(other, "grants.withdraw", subject=issuer.did, accreditor=net.operator.did)
        with refused("not_accredited"):
            net.call(other, "grants.withdraw", subject=issuer.did)
        accredit(net, issuer, other, ["brp"], ["*"])
        net.call(net.operator, "grants.withdraw", subject=other.did, accreditor=issuer.did)
        (record,) = net.ask("grants.accreditations", subject=other.did)
        assert record["status"] == "withdrawn"


class TestRevoke:
    def test_a_revoked_actor_is_refused_from_then_on(self, net: Network) -> None:
        helper = net.actor("market_operator")
        days = [{"date": "2016-05-20", "start": 1463695200000, "isps": 96, "isp_seconds": 900, "working": True}]
        net.call(net.operator, "grants.revoke", subject=helper.did, role="market_operator")
        with refused("role"):
            net.call(helper, "calendar.publish", days=days)

    def test_by_the_issuer_or_the_operator_only(self, net: Network) -> None:
        issuer, subject, other = net.actor(), net.actor(), net.actor()
        accredit(net, net.operator, issuer, ["brp"], ["*"])
        net.enrol(subject, "brp", issuer=issuer)
        with refused("not_issuer"):
            net.call(other, "grants.revoke", subject=subject.did, role="brp", issuer=issuer.did)
        with refused("not_granted"):
            net.call(other, "grants.revoke", subject=subject.did, role="brp")
        with refused("not_issuer"):
            net.call(other, "grants.revoke", subject=subject.did, role="brp", issuer="*")
        net.call(net.operator, "grants.revoke", subject=subject.did, role="brp", issuer="*")
        assert markets(net, subject, "brp") == frozenset()
        with refused("not_granted"):
            net.call(issuer, "grants.revoke", subject=subject.did, role="brp")

    def test_the_root_is_not_revoked(self, net: Network) -> None:
        with refused("operator"):
            net.call(net.operator, "grants.revoke", subject=net.operator.did, role="market_operator")


def flip(value: str) -> str:
    data = bytearray(multibase_decode(value))
    data[-1] ^= 1
    return multibase(bytes(data))


def canonical_lists(credential: dict[str, Any]) -> dict[str, Any]:
    """The document as it comes from JSON: lists, not tuples."""
    result: dict[str, Any] = json.loads(json.dumps(credential))
    return result
