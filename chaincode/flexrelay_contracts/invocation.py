"""How a call, its answer and its events look to a chaincode that runs these contracts (Hyperledger Fabric).

Arguments of a transaction: [b"submit", signed intent]; of a query: [b"query", name, canonical JSON of the arguments].
A good answer's payload is canonical JSON. A failed one has status 500 and a message of canonical JSON {kind: {code,
message, field}}: "refused" is the contract's own no, "rejected" the runtime's (the transaction's time, size, form).
Fabric takes one event a transaction: it carries all of the contract's, in order.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.canonical import CanonicalError, canonical, parse

SUBMIT: Final = b"submit"
QUERY: Final = b"query"
EVENTS: Final = "flexrelay.events.v1"
OK: Final = 200
FAILED: Final = 500


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an execution gave no answer."""

    kind: Literal["refused", "rejected"]
    code: str
    message: str
    field: str = ""

    def refusal(self) -> Refused:
        return Refused(self.code, self.message, self.field)


def submit_args(intent: bytes) -> list[bytes]:
    return [SUBMIT, intent]


def query_args(name: str, args: Mapping[str, Any]) -> list[bytes]:
    """Raises CanonicalError for arguments that are no JSON of integers and texts."""
    return [QUERY, name.encode(), canonical(dict(args))]


def encode_failure(failure: Failure) -> str:
    body = {"code": failure.code, "message": failure.message, "field": failure.field}
    return canonical({failure.kind: body}).decode()


def decode_failure(message: str) -> Failure | None:
    """The failure in a response's message; None when the message is not one of ours."""
    try:
        value = parse(message.encode())
    except CanonicalError:
        return None
    if not isinstance(value, dict) or len(value) != 1:
        return None
    body = value.get("refused", value.get("rejected"))
    if not isinstance(body, dict) or set(body) != {"code", "message", "field"}:
        return None
    if not all(isinstance(part, str) for part in body.values()):
        return None
    return Failure("refused" if "refused" in value else "rejected", body["code"], body["message"], body["field"])


def encode_events(events: Sequence[tuple[str, bytes]]) -> bytes:
    """Canonical JSON: [[name, base64 of the payload], …] in order."""
    return canonical([[name, base64.b64encode(payload).decode()] for name, payload in events])


def decode_events(payload: bytes) -> list[tuple[str, bytes]]:
    """Inverse of `encode_events`. Raises ValueError."""
    try:
        rows = parse(payload)
        return [(name, base64.b64decode(text, validate=True)) for name, text in rows]
    except (CanonicalError, binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"the transaction's event is not a list of [name, base64]: {error}") from None
