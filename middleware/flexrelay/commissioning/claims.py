"""Claim codes: what is printed on a device so that whoever holds it can say "this one".

A code is the first 128 bits of the SHA-256 of the device's public key (Multikey text) and 12 bits of check, in
Crockford's base 32: seven groups of four, e.g. `7Q0K-…`. It is no secret and gives no right by itself: the device (or
its maker, before delivery) signs a create operation that names the controller, and the code tells that this operation
is of the key in the device at hand. See docs/decisions/claim-codes.md.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flexrelay.commissioning.errors import CommissioningError
from flexrelay_schemas.did import Create, operation_message
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.keys import verify

_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ALIKE: Final = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})
_CHECK_BITS: Final = 12
_LENGTH: Final = 28


@dataclass(frozen=True, slots=True)
class SignedCreate:
    """A create operation that its own key has signed."""

    operation: Create
    proof: str


def claim_code(key: str) -> str:
    """The code of a device's public key (Multikey text)."""
    first = hashlib.sha256(key.encode()).digest()[:16]
    number = int.from_bytes(first, "big") << _CHECK_BITS | _check(first)
    text = "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(_LENGTH)))
    return "-".join(text[start : start + 4] for start in range(0, _LENGTH, 4))


def read_code(text: str) -> str:
    """The code as `claim_code` writes it, from what a person has typed. Raises ValueError: mistyped."""
    digits = text.upper().translate(_ALIKE)
    if len(digits) != _LENGTH or any(digit not in _DIGITS for digit in digits):
        raise ValueError(f"a claim code has {_LENGTH} letters and digits")
    number = 0
    for digit in digits:
        number = number << 5 | _DIGITS.index(digit)
    first = (number >> _CHECK_BITS).to_bytes(16, "big")
    if number & (1 << _CHECK_BITS) - 1 != _check(first):
        raise ValueError("mistyped: its check digits do not fit")
    return "-".join(digits[start : start + 4] for start in range(0, _LENGTH, 4))


def signed_create(value: Any) -> SignedCreate:
    """{operation, proof} as a device or its maker hands it over. Raises ValueError: of another form, or not signed
    with the key that it names."""
    try:
        operation, proof = Create.model_validate(value["operation"]), str(value["proof"])
        holds = verify(operation.key, b64u_decode(proof), operation_message(operation))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a signed create operation: {error}") from None
    if not holds:
        raise ValueError("not a signed create operation: its proof does not hold")
    return SignedCreate(operation, proof)


Operations = Mapping[tuple[str, str], SignedCreate]
"""By (claim code, controller's DID)."""


def read_operations(path: Path) -> Operations:
    """From one file of JSON or JSON lines, or from all `*.json` and `*.jsonl` files of a folder.

    Raises CommissioningError naming file and line.
    """
    found: dict[tuple[str, str], SignedCreate] = {}
    for file in sorted(path.glob("*.json*")) if path.is_dir() else [path]:
        for line, value in _values(file):
            try:
                signed = signed_create(value)
            except ValueError as error:
                raise CommissioningError(f"{file}, line {line}: {error}") from None
            at = (claim_code(signed.operation.key), signed.operation.controller)
            if found.setdefault(at, signed) != signed:
                raise CommissioningError(f"{file}, line {line}: another operation of the same key and controller")
    return found


def _values(file: Path) -> Iterator[tuple[int, Any]]:
    try:
        text = file.read_text()
    except OSError as error:
        raise CommissioningError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommissioningError(f"{file} is not UTF-8") from None
    try:
        yield 1, json.loads(text)
    except RecursionError:
        raise CommissioningError(f"{file}: nested too deeply") from None
    except ValueError:
        for line, content in enumerate(text.splitlines(), 1):
            if content.strip():
                try:
                    yield line, json.loads(content)
                except (ValueError, RecursionError) as error:
                    raise CommissioningError(f"{file}, line {line}: not JSON: {error}") from None


def _check(first: bytes) -> int:
    digest = hashlib.sha256(b"flexrelay-claim-v1" + first).digest()
    return int.from_bytes(digest[:2], "big") >> 16 - _CHECK_BITS
