"""Proposals, and what comes back for them: another transaction or a false endorsement is noticed."""

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.ledger.fabric.world import CHAINCODE, CHANNEL, Authority, Node, World

from flexrelay.ledger.fabric import Untrusted
from flexrelay.ledger.fabric import messages as pb
from flexrelay.ledger.fabric.proposal import check_endorsed, propose, seek_payload
from flexrelay_contracts.invocation import submit_args


def test_a_proposal_says_what_is_to_be_called(world: World) -> None:
    unsigned = propose(CHANNEL, CHAINCODE, submit_args(b"intent"), world.client.serialized, 1_700_000_000_123)
    proposal = pb.Proposal.FromString(unsigned.data)
    header = pb.Header.FromString(proposal.header)
    channel = pb.ChannelHeader.FromString(header.channel_header)
    signature = pb.SignatureHeader.FromString(header.signature_header)
    assert (channel.type, channel.channel_id, channel.epoch) == (3, CHANNEL, 0)
    assert (channel.timestamp.seconds, channel.timestamp.nanos) == (1_700_000_000, 123_000_000)
    assert channel.tx_id == unsigned.tx_id == hashlib.sha256(signature.nonce + signature.creator).hexdigest()
    assert pb.ChaincodeHeaderExtension.FromString(channel.extension).chaincode_id.name == CHAINCODE
    payload = pb.ChaincodeProposalPayload.FromString(proposal.payload)
    spec = pb.ChaincodeInvocationSpec.FromString(payload.input).chaincode_spec
    assert (spec.chaincode_id.name, list(spec.input.args)) == (CHAINCODE, [b"submit", b"intent"])


@given(
    args=st.lists(st.binary(max_size=300), max_size=4),
    seconds=st.integers(0, 2**40),
    channel=st.text(st.characters(codec="utf-8"), max_size=20),
    transient=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.binary(max_size=200), max_size=1),
)
def test_a_proposal_has_the_bytes_of_generated_messages(
    args: list[bytes], seconds: int, channel: str, transient: dict[str, bytes]
) -> None:
    unsigned = propose(channel, CHAINCODE, args, b"creator", seconds * 1000 + 7, transient)
    nonce = pb.SignatureHeader.FromString(unsigned.signature_header).nonce
    called = {"chaincode_id": {"name": CHAINCODE}}
    header = pb.ChannelHeader(type=3, channel_id=channel, tx_id=unsigned.tx_id)
    header.timestamp.seconds, header.timestamp.nanos = seconds, 7_000_000
    header.extension = pb.ChaincodeHeaderExtension(**called).SerializeToString()
    signature = pb.SignatureHeader(creator=b"creator", nonce=nonce)
    spec = pb.ChaincodeInvocationSpec(chaincode_spec={"type": 1, "input": {"args": args}, **called}).SerializeToString()
    payload = pb.ChaincodeProposalPayload(input=spec)
    assert unsigned.public_payload == payload.SerializeToString()
    payload.TransientMap.update(transient)
    both = pb.Header(channel_header=header.SerializeToString(), signature_header=signature.SerializeToString())
    proposal = pb.Proposal(header=both.SerializeToString(), payload=payload.SerializeToString())
    if channel:  # an empty name is written here and left out there
        assert unsigned.data == proposal.SerializeToString()
    assert pb.Proposal.FromString(unsigned.data).payload == proposal.payload


def test_transaction_ids_are_new_each_time(world: World) -> None:
    assert len({world.proposal().tx_id for _ in range(100)}) == 100


def test_transient_values_are_in_the_proposal_and_not_in_what_is_endorsed(world: World) -> None:
    unsigned = propose(CHANNEL, CHAINCODE, [b"submit", b"i"], world.client.serialized, 1, {"value": b"a secret"})
    assert b"a secret" in unsigned.data
    assert b"a secret" not in unsigned.public_payload
    payload = pb.ChaincodeProposalPayload.FromString(pb.Proposal.FromString(unsigned.data).payload)
    assert dict(payload.TransientMap) == {"value": b"a secret"}


def test_a_good_endorsement_is_believed(world: World) -> None:
    unsigned = world.proposal()
    peers = [world.peers["dso"], world.peers["agga"]]
    found = check_endorsed(unsigned, world.endorsed(unsigned, peers, b'{"a":1}'), world.trust, ["dso"])
    assert (found.result, found.orgs) == (b'{"a":1}', ("agga", "dso"))


def test_an_endorsement_that_was_asked_for_must_be_there(world: World) -> None:
    unsigned = world.proposal()
    payload = world.endorsed(unsigned, [world.peers["dso"]])
    with pytest.raises(Untrusted, match="agga was asked for"):
        check_endorsed(unsigned, payload, world.trust, ["dso", "agga"])


def test_another_transaction_is_noticed(world: World) -> None:
    unsigned, other = world.proposal(), world.proposal()
    with pytest.raises(Untrusted, match="another transaction"):
        check_endorsed(unsigned, world.endorsed(other, [world.peers["dso"]]), world.trust, [])


def _changed(world: World, change: Callable[[Any, Any], None]) -> tuple[Any, bytes]:
    unsigned = world.proposal()
    outer = pb.Payload.FromString(world.endorsed(unsigned, [world.peers["dso"]]))
    transaction = pb.Transaction.FromString(outer.data)
    body = pb.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
    change(transaction, body)
    if transaction.actions:
        transaction.actions[0].payload = body.SerializeToString()
    outer.data = transaction.SerializeToString()
    return unsigned, outer.SerializeToString()


def _result(transaction: Any, body: Any) -> None:
    response = pb.ProposalResponsePayload.FromString(body.action.proposal_response_payload)
    response.extension = pb.ChaincodeAction(response={"status": 200, "payload": b'{"forged":1}'}).SerializeToString()
    body.action.proposal_response_payload = response.SerializeToString()


def _arguments(transaction: Any, body: Any) -> None:
    body.chaincode_proposal_payload = pb.ChaincodeProposalPayload(input=b"other").SerializeToString()


def _none(transaction: Any, body: Any) -> None:
    del body.action.endorsements[:]


def _twice(transaction: Any, body: Any) -> None:
    transaction.actions.add().CopyFrom(transaction.actions[0])


def _no_action(transaction: Any, body: Any) -> None:
    del transaction.actions[:]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_result, "is not signed by its peer"),
        (_arguments, "another transaction"),
        (_none, "carries no endorsement"),
        (_twice, "cannot be read"),
        (_no_action, "cannot be read"),
    ],
)
def test_a_changed_transaction_is_noticed(world: World, change: Callable[[Any, Any], None], message: str) -> None:
    unsigned, payload = _changed(world, change)
    with pytest.raises(Untrusted, match=message):
        check_endorsed(unsigned, payload, world.trust, [])


def test_only_peers_of_the_profiles_organisations_endorse(world: World) -> None:
    stranger = Node(Authority("dso"), "peer0.dso", "peer")
    unknown = Node(Authority("other"), "peer0.other", "peer")
    for node, message in (
        (stranger, "was not issued by dso"),
        (unknown, "no organisation 'other'"),
        (world.client, "its certificate is for"),
        (world.orderers[0], "no organisation 'op' with kind"),
    ):
        unsigned = world.proposal()
        with pytest.raises(Untrusted, match=message):
            check_endorsed(unsigned, world.endorsed(unsigned, [node]), world.trust, [])


@pytest.mark.parametrize("payload", [b"", b"\xff", b"x" * 100])
def test_what_cannot_be_read_is_not_believed(world: World, payload: bytes) -> None:
    with pytest.raises(Untrusted):
        check_endorsed(world.proposal(), payload, world.trust, [])


def test_blocks_are_asked_for_by_number(world: World) -> None:
    payload = pb.Payload.FromString(seek_payload(CHANNEL, world.client.serialized, 5, 3, None, b"hash"))
    header = pb.ChannelHeader.FromString(payload.header.channel_header)
    seek = pb.SeekInfo.FromString(payload.data)
    assert (header.type, header.channel_id, header.tls_cert_hash) == (5, CHANNEL, b"hash")
    assert (seek.start.specified.number, seek.stop.specified.number) == (3, 2**64 - 1)
