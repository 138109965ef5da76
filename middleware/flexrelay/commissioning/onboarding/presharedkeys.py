"""Pre-shared keys and bootstrap accounts of LwM2M devices, in the files that the adapters read.

One device has one key, the same at every receiver. What stands in a file stays as it is; new lines are added, and the
file is there in full or not at all.
"""

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flexrelay.commissioning.errors import CommissioningError
from flexrelay.config import Config
from flexrelay.identity.keyfile import write_private

PROTOCOL: Final = "lwm2m"
KEY_BYTES: Final = 16
MAX_IDENTITY: Final = 128


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one organisation's LwM2M adapters."""

    keys: tuple[Path, ...] = ()
    accounts: tuple[Path, ...] = ()


def places_of(folder: Path, config: Config) -> dict[str, Places]:
    """By organisation, from the configuration of the adapters of type lwm2m."""
    found: dict[str, Places] = {}
    for gateway in config.gateways:
        sections = [section for section in gateway.adapters.values() if section["type"] == PROTOCOL]
        keys = [section["coaps"]["psk_file"] for section in sections if "psk_file" in (section.get("coaps") or {})]
        accounts = [section["bootstrap_file"] for section in sections if section.get("bootstrap_file")]
        found[gateway.org] = Places(tuple(folder / name for name in keys), tuple(folder / name for name in accounts))
    return found


@dataclass(frozen=True, slots=True)
class Account:
    """What is wanted for one device; an empty key is made. `bootstrap` empty: no bootstrap account."""

    identity: str
    key: str = field(default="", repr=False)
    bootstrap: str = ""
    bootstrap_key: str = field(default="", repr=False)


class KeyBook:
    """The keys of all these files. Raises CommissioningError where one cannot be read."""

    def __init__(self, places: Iterable[Places]) -> None:
        held = list(places)
        self._keys = {path: _read_keys(path) for place in held for path in place.keys}
        self._accounts = {path: _read_accounts(path) for place in held for path in place.accounts}

    def key(self, identity: str) -> str:
        """In hexadecimal; empty when no file has one."""
        return next((keys[identity] for keys in self._keys.values() if identity in keys), "")

    def clash(self, identity: str, key: str) -> Path | None:
        """The file in which the identity has another key."""
        return next((path for path, keys in self._keys.items() if keys.get(identity, key).lower() != key.lower()), None)

    def account(self, bootstrap: str) -> Mapping[str, Any] | None:
        return next((accounts[bootstrap] for accounts in self._accounts.values() if bootstrap in accounts), None)

    def gives(self, identity: str) -> bool:
        """Whether it is what a bootstrap account gives its device."""
        return any(given.get("identity") == identity for held in self._accounts.values() for given in held.values())

    def write(self, wanted: Iterable[tuple[Account, Places]], uri: str) -> None:
        """Add what misses, in one write a file. Raises KeyFileError."""
        lines: dict[Path, dict[str, str]] = {}
        accounts: dict[Path, dict[str, Any]] = {}
        for account, places in wanted:
            key = self.key(account.identity) or account.key or secrets.token_hex(KEY_BYTES)
            given = {account.identity: key}
            if account.bootstrap:
                given[account.bootstrap] = (
                    self.key(account.bootstrap) or account.bootstrap_key or secrets.token_hex(KEY_BYTES)
                )
            for path in places.keys:
                new = {identity: text for identity, text in given.items() if identity not in self._keys[path]}
                self._keys[path].update(new)
                lines.setdefault(path, {}).update(new)
            for path in places.accounts if account.bootstrap else ():
                if account.bootstrap not in self._accounts[path]:
                    told = {"uri": uri, "mode": "psk", "identity": account.identity, "key": "".join(key.split())}
                    self._accounts[path][account.bootstrap] = accounts.setdefault(path, {})[account.bootstrap] = told
        for path, new in lines.items():
            if new:
                _append(path, new)
        for path in accounts:
            write_private(path, json.dumps(self._accounts[path], indent=1).encode() + b"\n", replace=True)


def unfit(identity: str) -> str:
    """Why it can be no PSK identity; empty when it can."""
    if len(identity.encode()) > MAX_IDENTITY:
        return f"a PSK identity has at most {MAX_IDENTITY} bytes"
    begins = next((each for each in ("#", "udp:") if identity.startswith(each)), "")
    return f"a PSK identity does not begin with {begins}" if begins else ""


def unfit_key(text: str) -> str:
    """Why it can be no key; empty when it can. Never tells the key."""
    try:
        size = len(bytes.fromhex(text))
    except ValueError:
        return "a key is hexadecimal"
    return "" if 8 <= size <= 64 else f"a key has 8 to 64 bytes, not {size}"


def _append(path: Path, new: Mapping[str, str]) -> None:
    before = path.read_text() if path.exists() else ""
    if before and not before.endswith("\n"):
        before += "\n"
    text = before + "".join(f"{identity}:{key}\n" for identity, key in new.items())
    write_private(path, text.encode(), replace=True)


def _read_keys(path: Path) -> dict[str, str]:
    keys: dict[str, str] = {}
    try:
        for line in path.read_text().splitlines() if path.exists() else ():
            identity, colon, key = line.strip().rpartition(":")
            if colon and not identity.startswith("#"):
                keys[identity] = key
    except (OSError, UnicodeDecodeError) as error:
        raise CommissioningError(f"{path} cannot be read: {error}") from None
    return keys


def _read_accounts(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text() or "{}") if path.exists() else {}
    except (OSError, ValueError) as error:
        raise CommissioningError(f"{path} is not a file of bootstrap accounts: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(account, dict) for account in found.values()):
        raise CommissioningError(f"{path} is not a file of bootstrap accounts: no object of objects")
    return found
