"""Why the shim itself, and not the contract, gives no answer. Only codes and safe texts: never values or arguments."""

from typing import Final

from flexrelay_contracts.invocation import Failure, encode_failure
from flexrelay_schemas.canonical import CanonicalError

_MAX_TEXT: Final = 2_000


class Rejected(Exception):
    """The shim refuses to run or to finish a call. `code` is stable and for programs:

    malformed_call  the proposal or its arguments cannot be read
    timestamp       the proposal's timestamp is too far from this clock
    wrong_entry     the function's entry is another chaincode
    busy            too many calls at once: try again later, or another organisation's peer
    draining        this chaincode stops: try again, or another organisation's peer
    deadline        the call took too long here
    too_large       a message would be larger than a peer takes
    peer_error      the peer refused a request of this call; the text is the peer's
    disconnected    the peer's stream ended during the call
    """

    def __init__(self, code: str, message: str, field: str = "") -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.field = field

    def failure(self) -> Failure:
        return Failure("rejected", self.code, self.message, self.field)


def failure_text(failure: Failure) -> str:
    """The message of a failed response; always text that can be sent, however odd the failure's own is."""
    cut = Failure(failure.kind, failure.code, failure.message[:_MAX_TEXT], failure.field[:_MAX_TEXT])
    try:
        return encode_failure(cut)
    except CanonicalError:
        code, message, field = (text.encode("utf-8", "replace").decode() for text in (cut.code, cut.message, cut.field))
        return encode_failure(Failure(cut.kind, code, message, field))
