"""A peer's gRPC error as one of the port's failures. The detail is only in the trailer grpc-status-details-bin."""

from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from flexrelay.ledger.fabric.errors import AccessDenied, TookTooLong
from flexrelay.ledger.fabric.http2 import SILENT
from flexrelay.ledger.fabric.messages import ErrorDetail, RpcStatus
from flexrelay.ledger.port import LedgerError, LedgerUnavailable, OutcomeUnknown, Rejected
from flexrelay_contracts import invocation as contract
from flexrelay_contracts.refusal import Refused

_DETAILS_KEY: Final = "grpc-status-details-bin"
_DETAIL_TYPE: Final = "/gateway.ErrorDetail"
_BY_CHAINCODE: Final = "chaincode response 500, "
MISMATCH: Final = "ProposalResponsePayloads do not match"
_ALREADY: Final = ("request already exists", "request already processed")
_NEVER: Final = ("status=BAD_REQUEST", "status=FORBIDDEN", "status=REQUEST_ENTITY_TOO_LARGE", "status=NOT_FOUND")
_TOO_LONG: Final = "deadline"
_NOT_NOW: Final = ("busy", "draining", _TOO_LONG, "peer_error")
"""Codes with which the chaincode's runtime, not the contract, gives up on one call."""
_NOT_CONNECTED: Final = ("failed to connect to all addresses", "dns resolution failed")
_OF_OTHERS: Final = (
    "failed to find any endorsing peers",
    "no orderer",
    "no orderers",
    "insufficient number of orderers",
    "endorsement timeout expired",
    "submit timeout expired",
)
_OUT_OF_TIME: Final = "incorrect timestamp"
"""A peer's own window around its clock (15 minutes), which is beyond any guard of the chaincode."""
_DENIED: Final = ("access denied", "creator", "client identity expired")
_MAX_TEXT: Final = 400

Code = grpc.StatusCode
_TOO_LARGE: Final = ("larger than max", "too large")


@dataclass(frozen=True, slots=True)
class Detail:
    """What one endorser or orderer said."""

    org: str
    address: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call. `address` is the peer that was called."""

    code: grpc.StatusCode
    message: str
    details: tuple[Detail, ...]
    address: str

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError, address: str) -> "Failure":
        details: list[Detail] = []
        for key, value in error.trailing_metadata() or ():
            if key == _DETAILS_KEY and isinstance(value, bytes):
                details += _details(value)
        return cls(error.code(), error.details() or "", tuple(details), address)

    @classmethod
    def in_words(cls, status: int, message: str, address: str) -> "Failure":
        """A peer's own answer with a bad status, as its gateway would tell it."""
        return cls(Code.ABORTED, f"chaincode response {status}, {message}", (), address)

    @property
    def orgs(self) -> frozenset[str]:
        """The organisations whose nodes said something."""
        return frozenset(detail.org for detail in self.details)

    @property
    def not_sent(self) -> bool:
        """Whether there was no connection, so that nothing was done."""
        return self.code is Code.UNAVAILABLE and any(part in self.message.lower() for part in _NOT_CONNECTED)

    @property
    def peer_failed(self) -> bool:
        """Whether the peer itself is not well; what its gateway says of other nodes is not its own failure."""
        if self.details or self.message.startswith(_OF_OTHERS):
            return False
        return self.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.INTERNAL)

    @property
    def hangs(self) -> bool:
        silent = self.message.startswith(SILENT)
        return self.peer_failed and (silent or self.code is Code.DEADLINE_EXCEEDED)

    @property
    def mismatch(self) -> bool:
        return MISMATCH in self.message or any(MISMATCH in detail.message for detail in self.details)

    def text(self) -> str:
        """For people: the peer, the code, the message and what each node said. Long messages are cut."""
        parts = [f"peer {self.address} says {self.code.name}: {_cut(self.message)}"]
        parts += [f"{detail.org} at {detail.address}: {_cut(detail.message)}" for detail in self.details]
        return "; ".join(parts)


def _details(data: bytes) -> list[Detail]:
    try:
        found = []
        for item in RpcStatus.FromString(data).details:
            if item.type_url.endswith(_DETAIL_TYPE):
                detail = ErrorDetail.FromString(item.value)
                found.append(Detail(detail.msp_id, detail.address, detail.message))
    except DecodeError:
        return []
    return found


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"


def contract_failures(failure: Failure) -> list[contract.Failure]:
    """What contracts, or their runtimes, said themselves, one for each executor that sent something."""
    texts = (*(detail.message for detail in failure.details), failure.message)
    return [said for said in map(_said, texts) if said is not None]


def _said(text: str) -> contract.Failure | None:
    start = text.find(_BY_CHAINCODE)
    return contract.decode_failure(text[start + len(_BY_CHAINCODE) :]) if start >= 0 else None


def refusals(failure: Failure) -> list[Detail]:
    """The details of those executors that refused for good."""
    return [
        detail
        for detail in failure.details
        if (said := _said(detail.message)) is not None and said.code not in _NOT_NOW
    ]


def refusal_code(failure: Failure) -> str:
    """The code with which an executor refused for good, "" when none did."""
    return next((said.code for said in contract_failures(failure) if said.code not in _NOT_NOW), "")


def raise_contract_failure(failure: Failure, tx_id: str) -> None:
    """Raise the contract's or the runtime's own failure when an executor sent one: Refused, Rejected, TookTooLong, or
    LedgerUnavailable when it says that it cannot now."""
    for said in contract_failures(failure):
        if said.kind == "refused":
            raise said.refusal()
        if said.code == _TOO_LONG:
            raise TookTooLong(f"the chaincode says {said.code}: {said.message}", tx_id)
        if said.code in _NOT_NOW:
            raise LedgerUnavailable(f"the chaincode says {said.code}: {said.message}", tx_id)
        raise Rejected(f"{said.code}: {said.message}", tx_id)


def execution_error(failure: Failure, tx_id: str = "") -> LedgerError | Refused:
    """The failure of an evaluation or an endorsement that is no contract's own one."""
    text = failure.text()
    if failure.code is Code.INVALID_ARGUMENT or _too_large(failure):
        return Rejected(text, tx_id)
    everything = " ".join((failure.message, *(detail.message for detail in failure.details))).lower()
    if _OUT_OF_TIME in everything:
        return Rejected(f"timestamp: {text}; check the clock of this machine", tx_id)
    if failure.code is Code.PERMISSION_DENIED or any(part in everything for part in _DENIED):
        return AccessDenied(
            f"{text} — the network does not accept this gateway: check the channel's name, that the organisation is a "
            "member, and that the certificate is neither expired nor revoked",
            tx_id,
        )
    return LedgerUnavailable(text, tx_id)


def submit_error(failure: Failure, tx_id: str) -> LedgerError | None:
    """The failure of a submission; None when the ledger has the envelope already (BFT says so with an error)."""
    said = (failure.message, *(detail.message for detail in failure.details))
    if any(part in text for part in _ALREADY for text in said):
        return None
    text = failure.text()
    if failure.not_sent or failure.code is Code.FAILED_PRECONDITION:
        return LedgerUnavailable(text, tx_id)
    if failure.code is Code.INVALID_ARGUMENT or _too_large(failure):
        return Rejected(text, tx_id)
    answers = [detail.message for detail in failure.details] or [failure.message]
    if all(any(part in answer for part in _NEVER) for answer in answers):
        return Rejected(text, tx_id)
    if failure.message.startswith("no orderer nodes available"):
        return LedgerUnavailable(text, tx_id)
    return OutcomeUnknown(text, tx_id)


def _too_large(failure: Failure) -> bool:
    return failure.code is Code.RESOURCE_EXHAUSTED and any(part in failure.message.lower() for part in _TOO_LARGE)
