"""What one organisation's gateway cannot do in the name of another, and not at another time either."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from integration.fabric_edges import raw
from integration.fabric_edges.consortium import GUARD_MS, Consortium, asked, working, written
from integration.fabric_edges.raw import Raw, Stranger
from support.chain import wall_ms
from support.contracts import Party

from flexrelay.ledger.fabric import FabricLedger, ProfileError
from flexrelay.ledger.port import Call, LedgerError, LedgerUnavailable, Rejected
from flexrelay_contracts.refusal import Refused

pytestmark = pytest.mark.timeout(1200)

LONGEST_S = 150.0


async def refusal(ledger: FabricLedger, intent: bytes) -> str:
    async with asyncio.timeout(LONGEST_S):
        while True:
            try:
                await ledger.prepare(Call(intent))
            except Refused as refused:
                return refused.code
            except LedgerUnavailable:  # a busy machine
                await asyncio.sleep(0.2)
            else:
                pytest.fail("it was not refused")


async def test_nobody_writes_for_another_organisations_actor_or_device(consortium: Consortium) -> None:
    owner, device, gateways = consortium.owner, consortium.device, consortium.gateways
    foreign = Party.new("device", owner.did)

    def as_another(party: Party, signer: Party) -> Party:
        return Party(party.kind, signer.private, signer.next_private, party.operation)

    anchor = {"anchor_id": "0", "root": "0" * 64, "windows": 1, "leaves": 1, "first_ms": 1, "last_ms": 2}
    forged = as_another(owner, gateways["dso"])
    tries = {
        "the owner's own intent, carried by a gateway without its grant": (
            consortium.intent(owner, "identity.register_device", **foreign.proven()),
            "gateway_grant",
        ),
        "an intent in the owner's name, signed by the gateway": (
            consortium.intent(forged, "identity.register_device", **foreign.proven()),
            "signature",
        ),
        "the device's own intent": (
            consortium.intent(device, "identity.deactivate", did=device.did, reason="x"),
            "gateway_grant",
        ),
        "a device for another's actor": (
            consortium.intent(consortium.operator, "identity.register_device", **foreign.proven()),
            "not_controller",
        ),
        "the end of another's device": (
            consortium.intent(consortium.operator, "identity.deactivate", did=device.did, reason="x"),
            "not_controller",
        ),
        "another gateway's anchor, passed on": (
            consortium.intent(gateways["agga"], "evidence.anchor", **anchor),
            "gateway_grant",
        ),
        "another gateway's anchor, signed by this one": (
            consortium.intent(as_another(gateways["agga"], gateways["dso"]), "evidence.anchor", **anchor),
            "signature",
        ),
    }
    async with consortium.connect("dso") as dso, consortium.connect("agga") as agga:
        found = {what: await refusal(dso, intent) for what, (intent, _) in tries.items()}
        assert found == {what: code for what, (_, code) in tries.items()}
        assert (await agga.evaluate("identity.show", {"did": device.did}))["status"] == "active"
        with pytest.raises(Refused, match="not"):
            await agga.evaluate("identity.show", {"did": foreign.did})
        await written(agga, consortium.intent(owner, "identity.register_device", **foreign.proven()))


async def test_nobody_speaks_as_another_organisation(consortium: Consortium) -> None:
    """The DSO's certificate with agga's name before it: the own client says no, and the peers too."""
    disguised = consortium.profile("agga").model_copy(update={"identity": consortium.profile("dso").identity})
    async with asyncio.timeout(LONGEST_S):
        with pytest.raises(ProfileError, match="is not one of agga's"):
            async with consortium.connect("dso", disguised):
                pass
        private = consortium.gateways["dso"].private
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        certificate = Path(disguised.identity.certificate).read_bytes()
        intent = consortium.intent(consortium.owner, "slow.wait", ms=0)
        for peer in disguised.peers:
            async with Raw.to(peer) as straight:
                message, tx_id = raw.call(Stranger("agga", certificate, private), [b"submit", intent], wall_ms())
                said = await straight.process(message)
                assert said.status != 200 and "access denied" in said.text, said
                said = await straight.endorse(message, tx_id)
                assert said.status != 200, said


async def test_nobody_reads_anothers_collection(consortium: Consortium) -> None:
    name, value = f"k-{secrets.token_hex(4)}", f"private-{secrets.token_hex(16)}"
    intent = consortium.intent(consortium.owner, "secret.keep", name=name)
    async with (
        consortium.connect("agga") as agga,
        consortium.connect("dso") as dso,
        consortium.connect("aggb") as aggb,
        asyncio.timeout(LONGEST_S * 3),
    ):
        await written(agga, intent, {"value": value.encode()}, ("agga", "dso"))
        assert await agga.evaluate("secret.kept", {"name": name}) == value
        while await dso.evaluate("secret.kept", {"name": name}) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert await dso.evaluate("secret.kept", {"name": name}) == value

        with pytest.raises(Refused) as caught:
            await aggb.evaluate("secret.kept", {"name": name})
        assert caught.value.code == "private_not_member"
        assert await aggb.evaluate("secret.hash", {"name": name})

        # at the members' peers themselves, where the contract would be allowed to read
        for peer in aggb._pool.others():
            with pytest.raises((LedgerError, Refused)) as denied:
                await asked(aggb, "secret.kept", {"name": name}, peer)
            assert value not in str(denied.value)
            assert "does not have read access" in str(denied.value), denied.value


async def test_a_chaincode_that_claims_a_membership_reads_nothing(consortium: Consortium) -> None:
    """aggb's own process is told that aggb is a member: its peer was never given the values."""
    name, value = f"k-{secrets.token_hex(4)}", f"private-{secrets.token_hex(16)}"
    intent = consortium.intent(consortium.owner, "secret.keep", name=name)
    async with consortium.connect("agga") as agga, consortium.connect("aggb") as aggb:
        await written(agga, intent, {"value": value.encode()}, ("agga", "dso"))
        with consortium.replaced("aggb", lambda text: text.replace('["agga", "dso"]', '["agga", "aggb", "dso"]')):
            await working(aggb)
            with pytest.raises((LedgerError, Refused)) as denied:
                await asked(aggb, "secret.kept", {"name": name})
            assert "does not have read access" in str(denied.value), denied.value
        await working(aggb)


@pytest.mark.parametrize(("beyond_ms", "says"), [(-300_000, "behind"), (300_000, "ahead of")])
async def test_nobody_writes_at_another_time(consortium: Consortium, beyond_ms: int, says: str) -> None:
    guard = GUARD_MS if beyond_ms > 0 else -GUARD_MS
    async with consortium.connect("agga") as agga:
        shifted = agga.with_clock(lambda: wall_ms() + guard + beyond_ms)
        with pytest.raises(Rejected, match=f"timestamp: .*{says} the peer's clock"):
            await shifted.prepare(Call(consortium.intent(consortium.owner, "slow.wait", ms=0)))
        inside = agga.with_clock(lambda: wall_ms() + guard // 4)
        await written(inside, consortium.intent(consortium.owner, "slow.wait", ms=0))


async def test_an_organisation_without_a_guard_backdates_nothing(consortium: Consortium) -> None:
    """agga's own process lets any timestamp pass; the other organisations' do not, and its endorsement is too few."""
    with consortium.replaced("agga", lambda text: text.replace(f"guard_ms = {GUARD_MS}", "guard_ms = 3600000")):
        async with consortium.connect_patiently("agga") as agga:
            await working(agga)
            back = agga.with_clock(lambda: wall_ms() - 600_000)
            intent = consortium.intent(consortium.owner, "slow.wait", ms=0)
            async with asyncio.timeout(LONGEST_S * 2):
                with pytest.raises(LedgerError, match="timestamp"):
                    await back.prepare(Call(intent))
                alone = await back.prepare(Call(intent, {}, ("agga",)))
                await back.submit(alone.envelope)
                while (status := back.known(alone.tx_id)) is None:  # noqa: ASYNC110 (the connection follows blocks)
                    await asyncio.sleep(0.05)
            assert status.validation.value == "ENDORSEMENT_POLICY_FAILURE"
    await consortium.answers("agga")
