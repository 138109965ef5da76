"""One remote end: its address, who it has proven to be, and how bytes get to it."""

import secrets
from collections.abc import Callable
from typing import Final

Address = tuple[str, int]


class Peer:
    """`credential` is what the transport has authenticated (PSK identity, certificate's name, or for plain UDP the
    address); `secure` whether by DTLS. Equal only to itself: a peer that is forgotten and comes again is another one.
    """

    __slots__ = ("_mid", "address", "allowance", "credential", "secure", "seen", "send")

    def __init__(self, address: Address, credential: str, secure: bool, send: Callable[[bytes], None]) -> None:
        self.address: Final = address
        self.credential: Final = credential
        self.secure: Final = secure
        self.send = send
        """Hand one datagram to the transport; never waits, never raises."""
        self.allowance = -1.0
        """Messages that may still come now (`layer`'s rate limit); below 0: not counted yet."""
        self.seen = 0.0
        self._mid = secrets.randbelow(65_536)

    def next_mid(self) -> int:
        self._mid = self._mid + 1 & 0xFFFF
        return self._mid

    def __repr__(self) -> str:
        return f"{self.address[0]}:{self.address[1]} ({self.credential})"
