"""What a device or a connection can refuse."""

from typing import Final

_NAMES: Final = {
    1: "illegal function",
    2: "illegal data address",
    3: "illegal data value",
    4: "device failure",
    5: "acknowledge",
    6: "device busy",
    7: "negative acknowledge",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "no answer from the device behind the gateway",
}
DEVICE_FAILURE: Final = 4
TRANSIENT: Final = frozenset({5, 6, 10, 11})
"""Another try may do."""


def exception_name(code: int) -> str:
    return f"{_NAMES.get(code, 'exception')} ({code})"


class Refused(Exception):
    """The device answered with an exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(exception_name(code))
        self.code = code

    @property
    def transient(self) -> bool:
        return code_is_transient(self.code)


def code_is_transient(code: int) -> bool:
    return code in TRANSIENT


class ConnectionLost(ConnectionError):
    """No answer, an answer to something else, or no connection; the connection is closed."""
