"""The state that follows from the blocks against the one that a peer's contracts read.

The peer's state is read in pages while the chain may go on. A key that was changed meanwhile may have any of the values
that it had in that time.
"""

import hashlib
from typing import Any, Final

from flexrelay.ledger.fabric.peerview import PeerView
from flexrelay.ledger.fabric.verify.judging import Judgement
from flexrelay.ledger.fabric.verify.report import Report
from flexrelay.ledger.fabric.verify.world import World
from flexrelay_contracts.refusal import Refused

QUERY: Final = "network.state_page"
_PAGE: Final = 500


class Comparison:
    """First `read`, then every block that came since goes through `moved`, then `finish`."""

    def __init__(self, chaincode: str, report: Report) -> None:
        self._chaincode = chaincode
        self._report = report
        self._told: dict[str, str] | None = None
        self._before: dict[str, set[str | None]] = {}

    async def read(self, view: PeerView) -> None:
        """All keys with the hashes of their values, as the peer has them. Raises LedgerError."""
        found: dict[str, str] = {}
        bookmark = ""
        try:
            while True:
                page: dict[str, Any] = await view.query(QUERY, {"size": _PAGE, "bookmark": bookmark})
                found.update(page["items"])
                bookmark = page["bookmark"]
                if not bookmark:
                    break
        except Refused as refused:
            if refused.code != "unknown_function":
                raise
            return  # contracts of an older version
        self._told = found

    def moved(self, judgement: Judgement) -> None:
        """What a block changes behind the pages' back; called before its changes are applied."""
        overlay = judgement.overlays.get(self._chaincode)
        if overlay is None:
            return
        state = judgement.world.state(self._chaincode)
        for key, entry in overlay.changes.items():
            if not key.startswith("\U0010ffff"):
                old = state.get(key)
                possible = self._before.setdefault(key, {None if old is None else _hash(old.value)})
                possible.add(None if entry is None else _hash(entry.value))

    def finish(self, world: World) -> None:
        if self._told is None:
            return
        told = dict(self._told)
        for data, value, *_ in world.state(self._chaincode).entries():
            key = data.decode()
            if key.startswith("\U0010ffff"):
                break
            self._key(key, told.pop(key, None), _hash(value))
        for key, value_hash in sorted(told.items()):
            self._key(key, value_hash, None)
        self._report.compared_state = True

    def _key(self, key: str, told: str | None, own: str | None) -> None:
        self._report.state_keys += 1
        if told == own or told in self._before.get(key, ()):
            return
        text = "holds another value than" if told and own else "is there and not" if told else "is missing, but stands"
        self._report.note(f"the peer's state: key {key!r} {text} in what the blocks give")


def _hash(value: bytes) -> str:
    return hashlib.sha256(value).hexdigest()
