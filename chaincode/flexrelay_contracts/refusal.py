"""A contract's refusal: a code for programs, a sentence for people, and the field that offends."""

from typing import Any


class Refused(Exception):
    """The contract says no; nothing is written. Repeating the same call at the same state says no again.

    `code` is snake_case and stable, `field` is the dotted path of the offending argument (empty: the call as a whole).
    """

    def __init__(self, code: str, message: str, field: str = "") -> None:
        super().__init__(f"{code}: {message}" + (f" [{field}]" if field else ""))
        self.code = code
        self.message = message
        self.field = field

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "message": self.message, "field": self.field}
