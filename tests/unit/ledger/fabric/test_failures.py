"""gRPC errors as failures of the port: the contract's own first, then by who failed and what may have happened."""

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2

from flexrelay.ledger.fabric import AccessDenied, TookTooLong
from flexrelay.ledger.fabric.failures import (
    MISMATCH,
    Code,
    Detail,
    Failure,
    execution_error,
    raise_contract_failure,
    submit_error,
)
from flexrelay.ledger.fabric.messages import ErrorDetail
from flexrelay.ledger.port import LedgerUnavailable, OutcomeUnknown, Rejected
from flexrelay_contracts import invocation
from flexrelay_contracts.refusal import Refused

REFUSED = invocation.encode_failure(invocation.Failure("refused", "no_grant", "the actor has no grant", "actor"))
REJECTED = invocation.encode_failure(invocation.Failure("rejected", "time_guard", "too far from the clock"))


def failure(code: grpc.StatusCode, message: str = "", *said: str) -> Failure:
    return Failure(code, message, tuple(Detail("dso", "peer0.dso:7051", text) for text in said), "peer0.dso:7051")


def rpc_error(code: grpc.StatusCode, message: str, trailer: bytes) -> grpc.aio.AioRpcError:
    trailing = grpc.aio.Metadata(("other", "x"), ("grpc-status-details-bin", trailer))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, message)


def test_details_are_unpacked_from_the_trailer() -> None:
    status = status_pb2.Status(code=10, message="outer")
    packed = any_pb2.Any()
    packed.Pack(ErrorDetail(msp_id="agga", address="peer0.agga:7051", message="said"))
    status.details.extend([any_pb2.Any(type_url="type.googleapis.com/other.Type", value=b"\xff"), packed])
    found = Failure.of(rpc_error(Code.ABORTED, "outer", status.SerializeToString()), "peer0.dso:7051")
    assert found == Failure(Code.ABORTED, "outer", (Detail("agga", "peer0.agga:7051", "said"),), "peer0.dso:7051")
    assert "agga at peer0.agga:7051: said" in found.text()


@pytest.mark.parametrize("trailer", [b"", b"\xff\xff\xff", b"\x1a\x05abc"])
def test_a_trailer_that_cannot_be_read_has_no_details(trailer: bytes) -> None:
    assert Failure.of(rpc_error(Code.ABORTED, "outer", trailer), "p").details == ()


def test_a_refusal_of_any_endorser_is_raised_as_it_was() -> None:
    found = failure(Code.ABORTED, "see details", "chaincode response 500, other", f"chaincode response 500, {REFUSED}")
    with pytest.raises(Refused) as caught:
        raise_contract_failure(found, "tx")
    assert (caught.value.code, caught.value.message, caught.value.field) == (
        "no_grant",
        "the actor has no grant",
        "actor",
    )


def test_a_refusal_may_stand_in_the_message() -> None:
    said = f"evaluate call to endorser returned error: chaincode response 500, {REFUSED}"
    with pytest.raises(Refused):
        raise_contract_failure(failure(Code.UNKNOWN, said), "")


def test_the_runtimes_no_is_a_rejection() -> None:
    with pytest.raises(Rejected, match="time_guard: too far"):
        raise_contract_failure(failure(Code.ABORTED, "", f"chaincode response 500, {REJECTED}"), "tx")


@pytest.mark.parametrize("code", ["busy", "draining", "deadline", "peer_error"])
def test_what_the_runtime_cannot_do_now_may_be_tried_again(code: str) -> None:
    said = invocation.encode_failure(invocation.Failure("rejected", code, "not now"))
    with pytest.raises(LedgerUnavailable, match="not now") as caught:
        raise_contract_failure(failure(Code.ABORTED, "", f"chaincode response 500, {said}"), "tx")
    assert isinstance(caught.value, TookTooLong) == (code == "deadline"), "what ran too long is not tried elsewhere"


@pytest.mark.parametrize(
    "said", ["", "timeout", "chaincode response 500, {}", 'chaincode response 500, {"refused":{}}']
)
def test_what_is_no_contracts_failure_is_left_alone(said: str) -> None:
    raise_contract_failure(failure(Code.ABORTED, said, said), "tx")


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (failure(Code.UNAVAILABLE, "failed to connect to all addresses"), LedgerUnavailable),
        (failure(Code.DEADLINE_EXCEEDED, "evaluate timeout expired"), LedgerUnavailable),
        (failure(Code.ABORTED, "failed to endorse", "chaincode stream terminated"), LedgerUnavailable),
        (failure(Code.FAILED_PRECONDITION, "no combination of peers can be derived"), LedgerUnavailable),
        (failure(Code.FAILED_PRECONDITION, "error validating proposal: access denied: channel [c]"), AccessDenied),
        (failure(Code.PERMISSION_DENIED, "no"), AccessDenied),
        (failure(Code.ABORTED, "see details", "proposal client identity expired"), AccessDenied),
        (failure(Code.UNKNOWN, "request unauthorized due to incorrect timestamp 2026-11-21T16:54:07Z"), Rejected),
        (failure(Code.INVALID_ARGUMENT, "a signed proposal is required"), Rejected),
        (failure(Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max"), Rejected),
        (failure(Code.RESOURCE_EXHAUSTED, "too many requests for /gateway.Gateway"), LedgerUnavailable),
    ],
)
def test_executions(found: Failure, kind: type[Exception]) -> None:
    assert type(execution_error(found, "tx")) is kind


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (failure(Code.UNAVAILABLE, "failed to connect to all addresses; last error: refused"), LedgerUnavailable),
        (failure(Code.UNAVAILABLE, "no orderer nodes available"), LedgerUnavailable),
        (failure(Code.UNAVAILABLE, "Socket closed"), OutcomeUnknown),
        (failure(Code.UNAVAILABLE, "no orderers could successfully process transaction", "EOF"), OutcomeUnknown),
        (failure(Code.DEADLINE_EXCEEDED, "submit timeout expired"), OutcomeUnknown),
        (failure(Code.CANCELLED, "cancelled"), OutcomeUnknown),
        (failure(Code.ABORTED, "received unsuccessful response from orderer: status=BAD_REQUEST, info=x"), Rejected),
        (failure(Code.ABORTED, "received unsuccessful response from orderer: status=FORBIDDEN, info=x"), Rejected),
        (failure(Code.INVALID_ARGUMENT, "prepared transaction must be signed"), Rejected),
        (failure(Code.UNAVAILABLE, "insufficient number", *["received: status=FORBIDDEN, info="] * 4), Rejected),
        (failure(Code.UNAVAILABLE, "insufficient number", "status=FORBIDDEN, info=", "EOF"), OutcomeUnknown),
        (
            failure(Code.UNAVAILABLE, "insufficient number", "status=SERVICE_UNAVAILABLE, info=no leader"),
            OutcomeUnknown,
        ),
    ],
)
def test_submissions(found: Failure, kind: type[Exception]) -> None:
    assert type(submit_error(found, "tx")) is kind


@pytest.mark.parametrize("said", ["request already exists", "failed to submit request: request already processed"])
def test_what_a_bft_orderer_has_already_is_submitted(said: str) -> None:
    assert submit_error(failure(Code.UNAVAILABLE, "insufficient number of orderers", "EOF", said), "tx") is None


def test_a_mismatch_is_noticed_wherever_it_stands() -> None:
    assert failure(Code.ABORTED, "see details", MISMATCH).mismatch
    assert failure(Code.ABORTED, f"failed to assemble transaction: {MISMATCH}").mismatch
    assert not failure(Code.ABORTED, "see details", "other").mismatch


def test_what_a_gateway_says_of_others_is_not_its_own_failure() -> None:
    assert failure(Code.UNAVAILABLE, "Socket closed").peer_failed
    assert not failure(Code.UNAVAILABLE, "failed to find any endorsing peers for org(s): agga").peer_failed
    assert not failure(Code.UNAVAILABLE, "no orderers could successfully process transaction", "EOF").peer_failed


def test_long_messages_are_cut() -> None:
    assert len(failure(Code.ABORTED, "x" * 10_000, "y" * 10_000).text()) < 1_000
