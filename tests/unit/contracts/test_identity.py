"""DID logs: who may create, rotate, end and reinstate; what attackers try."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.contracts import MemoryContext, Party, sign
from support.network import Network, rotation
from support.refusals import refused

from flexrelay_contracts import didlog
from flexrelay_contracts.identity import suspend
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.canonical import parse
from flexrelay_schemas.did import Rotate, key_hash, operation_message
from flexrelay_schemas.keys import multikey


@pytest.fixture
def net() -> Network:
    return Network.start(days=3)


def apply(net: Network, change) -> None:  # type: ignore[no-untyped-def]
    """Run a contract's helper outside a transaction and keep what it wrote."""
    context = MemoryContext(net.ledger, "f" * 64, net.ledger.now, net.creators["dso"], {})
    change(context)
    net.ledger.state.update({key: value for key, value in context.writes.items() if value is not None})
    net.ledger.events.extend(context.events)


def context(net: Network) -> MemoryContext:
    return MemoryContext(net.ledger, "0" * 64, net.ledger.now, net.creators["dso"], {})


class TestRegister:
    @pytest.mark.parametrize("p256", [True, False])
    def test_an_actor_registers_itself_and_may_act_at_once(self, net: Network, p256: bool) -> None:
        actor = net.actor(p256=p256)
        shown = net.ask("identity.show", did=actor.did)
        assert (shown["status"], shown["kind"], shown["version"], shown["controller"]) == ("active", "actor", 1, "")
        net.device(actor, p256=p256)

    def test_twice_is_refused(self, net: Network) -> None:
        actor = net.actor()
        with refused("did_exists"):
            net.call(actor, "identity.register", **actor.proven(), gateway="")

    def test_a_device_or_gateway_does_not_register_itself(self, net: Network) -> None:
        owner = net.actor()
        for party in (Party.new("device", owner.did), Party.new("gateway")):
            net.adopt(party)
            with refused("kind", "operation.kind"):
                net.call(party, "identity.register", **party.proven(), gateway="")

    def test_somebody_elses_operation_is_refused(self, net: Network) -> None:
        one, other = net.adopt(Party.new()), Party.new()
        with refused("did_mismatch"):
            net.call(one, "identity.register", **other.proven(), gateway="")
        known = net.actor()
        with refused("did_mismatch"):
            net.call(known, "identity.register", **other.proven(), gateway="")

    def test_the_proof_must_be_the_keys(self, net: Network) -> None:
        party = net.adopt(Party.new())
        forged = party.proven() | {"proof": sign(Party.new().private, operation_message(party.operation))}
        with refused("proof", "proof"):
            net.call(party, "identity.register", **forged, gateway="")

    def test_the_gateway_must_be_one(self, net: Network) -> None:
        party = net.adopt(Party.new())
        with refused("gateway_unknown", "gateway"):
            net.call(party, "identity.register", **party.proven(), gateway=net.actor().did)

    @pytest.mark.parametrize("gateway", ["x", "a\x00b", "\U0010ffff"])
    def test_the_gateway_is_a_did_or_empty(self, net: Network, gateway: str) -> None:
        party = net.adopt(Party.new())
        with pytest.raises(Refused, match="invalid_argument"):
            net.call(party, "identity.register", **party.proven(), gateway=gateway)

    def test_a_gateway_that_is_no_longer_active_carries_no_registration(self, net: Network) -> None:
        net.call(net.gateways["agg-a"], "identity.deactivate", did=net.gateways["agg-a"].did)
        party = net.adopt(Party.new(), "agg-a")
        with refused("did_inactive", "gateway"):
            net.call(party, "identity.register", **party.proven(), gateway="")

    def test_next_key_must_differ_from_the_first(self, net: Network) -> None:
        party = Party.new()
        operation = party.operation.model_copy(update={"next_key_hash": key_hash(party.operation.key)})
        party = net.adopt(replace(party, operation=operation))
        with refused("pre_rotation"):
            net.call(party, "identity.register", **party.proven(), gateway="")

    def test_another_networks_identity_is_refused(self, net: Network) -> None:
        party = net.adopt(Party.new(network="elsewhere"))
        with refused("wrong_network"):
            net.call(party, "identity.register", **party.proven(), gateway="")

    def test_without_a_gateway_the_actor_names_one_later(self, net: Network) -> None:
        party = net.adopt(Party.new())
        net.call(party, "identity.register", **party.proven(), gateway="")
        with refused("gateway_grant"):
            net.device(party)
        net.call(party, "gateways.grant", gateway=net.gateways["dso"].did)
        net.device(party)


class TestRegisterDevice:
    def test_only_for_oneself(self, net: Network) -> None:
        owner, other = net.actor(), net.actor()
        device = Party.new("device", owner.did)
        with refused("not_controller", "operation.controller"):
            net.call(other, "identity.register_device", **device.proven())

    def test_not_by_a_device_or_gateway(self, net: Network) -> None:
        device = net.device(net.actor())
        child = Party.new("device", device.did)
        with refused("kind", "actor"):
            net.call(device, "identity.register_device", **child.proven())
        gateway = net.gateways["dso"]
        with refused("kind", "actor"):
            net.call(gateway, "identity.register_device", **Party.new("device", gateway.did).proven())

    def test_only_devices(self, net: Network) -> None:
        owner = net.actor()
        with refused("kind", "operation.kind"):
            net.call(owner, "identity.register_device", **Party.new("actor", owner.did).proven())

    def test_network_and_proof_and_repetition(self, net: Network) -> None:
        owner = net.actor()
        foreign = Party.new("device", owner.did, network="elsewhere")
        with refused("wrong_network", "operation.network"):
            net.call(owner, "identity.register_device", **foreign.proven())
        device = Party.new("device", owner.did)
        with refused("proof"):
            net.call(owner, "identity.register_device", **device.proven() | {"proof": "A" * 86})
        net.call(owner, "identity.register_device", **device.proven())
        with refused("did_exists"):
            net.call(owner, "identity.register_device", **device.proven())


class TestRotation:
    def test_the_new_key_acts_and_the_old_one_does_not(self, net: Network) -> None:
        actor = net.actor()
        before = replace(actor)
        net.rotate(actor)
        net.device(actor)
        with refused("key_version"):
            net.call(before, "gateways.grant", gateway=net.gateways["dso"].did)
        with refused("signature"):
            net.call(replace(before, version=2), "gateways.grant", gateway=net.gateways["dso"].did)

    def test_a_thief_of_the_current_key_cannot_rotate(self, net: Network) -> None:
        """The thief has the current key but not the pre-rotated one."""
        actor = net.actor()
        own = Party.new()
        operation, _ = rotation(actor)
        stolen = Rotate.model_validate(operation.model_dump() | {"key": multikey(own.private.public_key())})
        with refused("pre_rotation", "operation.key"):
            net.call(actor, "identity.rotate", **own.proven(stolen))

    def test_the_committed_key_must_sign(self, net: Network) -> None:
        actor = net.actor()
        operation, _ = rotation(actor)
        with refused("proof"):
            net.call(actor, "identity.rotate", **actor.proven(operation))  # signed with the current key

    def test_a_holder_that_lost_its_current_key_is_not_locked_out(self, net: Network) -> None:
        actor = net.actor()
        net.rotate(actor, carrier=net.gateways["dso"])
        assert net.ask("identity.show", did=actor.did)["version"] == 2
        net.device(actor)

    def test_a_rotation_is_not_replayed_skipped_or_forked(self, net: Network) -> None:
        actor = net.actor()
        first, renewed = rotation(actor)
        proven = renewed.proven(first)
        with refused("version"):
            jump = first.model_copy(update={"version": 3})
            net.call(actor, "identity.rotate", **renewed.proven(jump))
        with refused("previous"):
            fork = first.model_copy(update={"previous": "0" * 64})
            net.call(actor, "identity.rotate", **renewed.proven(fork))
        with refused("pre_rotation", "operation.next_key_hash"):
            same = first.model_copy(update={"next_key_hash": key_hash(first.key)})
            net.call(actor, "identity.rotate", **renewed.proven(same))
        net.call(actor, "identity.rotate", **proven)
        with refused("version"):
            net.call(net.gateways["dso"], "identity.rotate", **proven)

    def test_unknown_and_deactivated_identities_do_not_rotate(self, net: Network) -> None:
        stranger = Party.new()
        operation, renewed = rotation(stranger)
        with refused("unknown_did"):
            net.call(net.gateways["dso"], "identity.rotate", **renewed.proven(operation))
        actor = net.actor()
        net.call(actor, "identity.deactivate", did=actor.did)
        operation, renewed = rotation(actor)
        with refused("deactivated"):
            net.call(net.gateways["dso"], "identity.rotate", **renewed.proven(operation))

    def test_spans_meet_without_gap_or_overlap(self, net: Network) -> None:
        net = Network.start(rate=(60, 1), days=0)
        actor = net.actor()
        for _ in range(3):
            net.ledger.now += 7_001
            net.rotate(actor)
        log = net.ask("identity.log", did=actor.did)
        assert [record["version"] for record in log] == [1, 2, 3, 4]
        spans = [record["spans"][0] for record in log]
        for one, following in itertools.pairwise(spans):
            assert one["wall_to"] == following["wall_from"]
            assert one["market_to"] == following["market_from"]
        assert spans[-1]["wall_to"] is None
        assert spans[-1]["market_from"] - spans[0]["market_from"] == 60 * 3 * 7_001
        assert [record["operation"].get("previous") for record in log] == [None, *[r["hash"] for r in log[:-1]]]

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(steps=st.lists(st.sampled_from(["rotate", "wait", "suspend", "reinstate"]), max_size=12))
    def test_at_each_instant_at_most_one_key_is_valid(self, steps: list[str]) -> None:
        net = Network.start(days=0)
        actor = net.actor()
        status, rotated = "active", False
        expected: list[tuple[int, int | None]] = [(net.market_ms, 1)]
        for step in steps:
            net.ledger.now += 1000
            if step == "rotate":
                net.rotate(actor, carrier=net.gateways["dso"])
                rotated = True
            elif step == "suspend":
                apply(net, lambda ctx: suspend(ctx, actor.did, "test"))
                rotated = rotated and status == "suspended"
                status = "suspended"
            elif step == "reinstate":
                if status == "suspended" and rotated:
                    net.call(net.operator, "identity.reinstate", did=actor.did)
                    status = "active"
                else:
                    with pytest.raises(Refused):
                        net.call(net.operator, "identity.reinstate", did=actor.did)
            expected.append((net.market_ms, actor.version if status == "active" else None))
        ctx = context(net)
        log = didlog.key_history(ctx, actor.did)
        for instant, version in expected:
            valid = [record["version"] for record in log if didlog.valid_at(record, instant)]
            assert valid == ([version] if version else [])


class TestEnd:
    def test_by_itself_or_its_controller_only(self, net: Network) -> None:
        owner, other = net.actor(), net.actor()
        device = net.device(owner)
        for stranger in (other, net.gateways["dso"], net.operator):
            with refused("not_controller", "did"):
                net.call(stranger, "identity.deactivate", did=device.did)
        net.call(owner, "identity.deactivate", did=device.did, reason="lost")
        with refused("deactivated"):
            net.call(owner, "identity.deactivate", did=device.did)
        with refused("did_inactive", "actor"):
            net.call(device, "identity.deactivate", did=device.did)
        own = net.device(owner)
        net.call(own, "identity.deactivate", did=own.did)

    def test_a_deactivated_actors_intents_are_refused(self, net: Network) -> None:
        actor = net.actor()
        net.call(actor, "identity.deactivate", did=actor.did)
        with refused("did_inactive", "actor"):
            net.device(actor)

    def test_unknown(self, net: Network) -> None:
        with refused("unknown_did"):
            net.call(net.operator, "identity.deactivate", did=Party.new().did)

    def test_the_operator_stays(self, net: Network) -> None:
        with refused("operator"):
            net.call(net.operator, "identity.deactivate", did=net.operator.did)

    def test_events_name_the_identity(self, net: Network) -> None:
        owner = net.actor()
        device = net.device(owner)
        net.rotate(device, carrier=owner)
        apply(net, lambda ctx: suspend(ctx, device.did, "equivocation"))
        net.call(owner, "identity.deactivate", did=device.did)
        names = [name for name, payload in net.ledger.events if device.did.encode() in payload]
        assert names == ["identity.registered", "identity.rotated", "identity.suspended", "identity.deactivated"]

    def test_events_say_from_when_they_count(self, net: Network) -> None:
        owner = net.actor()
        device = net.device(owner)
        net.rotate(device, carrier=owner)
        apply(net, lambda ctx: suspend(ctx, device.did, "equivocation"))
        net.rotate(device, carrier=owner)
        net.call(net.operator, "identity.reinstate", did=device.did)
        net.call(owner, "identity.deactivate", did=device.did)
        told = [(name, parse(data)) for name, data in net.ledger.events if device.did.encode() in data]
        at = [payload["market_ms"] for _, payload in told]
        spans = [item["spans"] for item in net.ask("identity.log", did=device.did)]
        assert [name for name, _ in told][3:] == ["identity.rotated", "identity.reinstated", "identity.deactivated"]
        assert [(span["market_from"], span["market_to"]) for [span] in spans] == [
            (at[0], at[1]),
            (at[1], at[2]),
            (at[4], at[5]),
        ]


class TestSuspension:
    def test_reinstating_takes_the_holders_rotation_and_the_operator(self, net: Network) -> None:
        owner = net.actor()
        device = net.device(owner)
        with refused("not_suspended"):
            net.call(net.operator, "identity.reinstate", did=device.did)
        apply(net, lambda ctx: suspend(ctx, device.did, "equivocation"))
        with refused("did_inactive"):
            net.call(device, "identity.deactivate", did=device.did)
        with refused("rotation_needed"):
            net.call(net.operator, "identity.reinstate", did=device.did)
        net.rotate(device, carrier=owner)
        with refused("role"):
            net.call(owner, "identity.reinstate", did=device.did)
        with refused("role"):
            net.call(net.actor("market_operator", markets=["local"]), "identity.reinstate", did=device.did)
        net.call(net.operator, "identity.reinstate", did=device.did)
        assert net.ask("identity.show", did=device.did)["status"] == "active"
        net.call(device, "identity.deactivate", did=device.did)

    def test_suspending_what_is_not_active_changes_nothing(self, net: Network) -> None:
        owner = net.actor()
        device = net.device(owner)
        net.call(owner, "identity.deactivate", did=device.did)
        before = dict(net.ledger.state)
        apply(net, lambda ctx: suspend(ctx, device.did, "equivocation"))
        assert net.ledger.state == before


class TestResolve:
    def test_document_is_did_core_with_a_multikey(self, net: Network) -> None:
        device = net.device(owner := net.actor())
        resolved = net.ask("identity.resolve", did=device.did)
        document = resolved["didDocument"]
        assert document["@context"] == ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"]
        assert document["controller"] == owner.did
        (method,) = document["verificationMethod"]
        assert method == {
            "id": f"{device.did}#v1",
            "type": "Multikey",
            "controller": device.did,
            "publicKeyMultibase": device.operation.key,
        }
        assert document["authentication"] == document["assertionMethod"] == [method["id"]]
        assert resolved["didDocumentMetadata"]["deactivated"] is False

    def test_old_keys_stay_resolvable_and_a_tombstone_has_none(self, net: Network) -> None:
        actor = net.actor()
        net.rotate(actor)
        old = net.ask("identity.resolve", did=actor.did, version=1)
        assert old["didDocument"]["verificationMethod"][0]["publicKeyMultibase"] == actor.operation.key
        assert old["didDocumentMetadata"]["nextVersionId"] == "2"
        net.call(actor, "identity.deactivate", did=actor.did)
        ended = net.ask("identity.resolve", did=actor.did)
        assert ended["didDocumentMetadata"]["deactivated"] is True
        assert "verificationMethod" not in ended["didDocument"]
        with refused("unknown_key_version"):
            net.ask("identity.resolve", did=actor.did, version=3)
        with refused("unknown_did"):
            net.ask("identity.log", did=Party.new().did)
