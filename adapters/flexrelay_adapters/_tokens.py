"""Who an HTTP request is from: by its bearer token, or by the certificate that TLS has verified. Never by what it says.

A tokens file has a line for each identity, `name:hex` with the SHA-256 of its token; empty lines and `#` comments are
ignored. The file is read again when it has changed, so a token can be withdrawn while the gateway runs.
"""

import hashlib
import logging
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from starlette.requests import Request

from flexrelay_adapters._http import Refusal, bearer_of, certificate_of

log = logging.getLogger(__name__)

_LINE: Final = re.compile(r"(?P<name>[^\s:/#][^\s:/]{0,127}):(?P<digest>[0-9a-f]{64})")
_LOOK_S: Final = 1.0
_COMPLAINT_S: Final = 10.0


def read_tokens(path: Path) -> dict[bytes, str]:
    """SHA-256 of the token → identity. Raises ValueError naming file and line, never its text."""
    found: dict[bytes, str] = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"tokens_file: {path} cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"tokens_file: {path}, line {number}: write name:hex with the token's SHA-256")
        digest = bytes.fromhex(match["digest"])
        if found.get(digest, match["name"]) != match["name"]:
            raise ValueError(f"tokens_file: {path}, line {number}: this token is another identity's already")
        found[digest] = match["name"]
    return found


class Doorkeeper:
    """Names the sender of a request, or turns it away with 401 and a word in the log."""

    def __init__(
        self, name: str, tokens_file: Path | None, certificates: Literal["common_name", "fingerprint"] = "common_name"
    ) -> None:
        self._name = name
        self._file = tokens_file
        self._certificates = certificates
        self._tokens: Mapping[bytes, str] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked = float("-inf")
        self._complained = float("-inf")
        self.turned_away = 0

    def identify(self, request: Request) -> str:
        """The identity. A token counts before a certificate. Raises Refusal(401)."""
        token = bearer_of(request)
        if token is not None:
            known = self._known().get(hashlib.sha256(token.encode()).digest())
            if known is None:
                raise self._away(request, "its token is nobody's")
            return known
        certificate = certificate_of(request)
        if certificate is None:
            raise self._away(request, "it shows neither a bearer token nor a certificate")
        if certificate.ends_at <= datetime.now(UTC):
            raise self._away(request, "its certificate has expired")
        name = certificate.common_name if self._certificates == "common_name" else certificate.fingerprint
        if not name or "/" in name:
            raise self._away(request, "its certificate has no single common name without /")
        return name

    def _known(self) -> Mapping[bytes, str]:
        if self._file is None or time.monotonic() - self._looked < _LOOK_S:
            return self._tokens
        self._looked = time.monotonic()
        try:
            stat = self._file.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                self._tokens, self._stamp = read_tokens(self._file), stamp
        except (OSError, ValueError) as error:
            log.error("%s: the tokens stay as they are: %s", self._name, error)
        return self._tokens

    def _away(self, request: Request, why: str) -> Refusal:
        self.turned_away += 1
        if time.monotonic() - self._complained >= _COMPLAINT_S:
            self._complained = time.monotonic()
            peer = request.client.host if request.client is not None else "somebody"
            log.warning("%s: %s is turned away: %s (%d so far)", self._name, peer, why, self.turned_away)
        return Refusal(401, "unauthorized", why, {"www-authenticate": "Bearer"})
