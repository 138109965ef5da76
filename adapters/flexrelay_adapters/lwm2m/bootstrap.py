"""The bootstrap server (OMA Core §6.1): a device that asks under its bootstrap credential is given its server account.

The accounts are data: a JSON object by credential, read at each request:

    {"boot-meter-1": {"uri": "coaps://gateway.example:5684", "mode": "psk", "identity": "meter-1", "key": "0f…",
                      "lifetime_s": 86400, "server_id": 1}}
"""

import asyncio
import json
import logging
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.blockwise import transfer
from flexrelay_adapters.lwm2m.coap.layer import Exchange, MessageLayer, NoAnswer
from flexrelay_adapters.lwm2m.coap.message import path_options
from flexrelay_adapters.lwm2m.coap.peer import Peer
from flexrelay_adapters.lwm2m.formats import Value
from flexrelay_adapters.lwm2m.operations import Operations, Refused
from flexrelay_adapters.lwm2m.server import Server
from flexrelay_schemas.model import Model

log = logging.getLogger(__name__)

_MODES: Final = {"psk": 0, "x509": 2, "none": 3}
"""Security mode, resource /0/x/2 (OMA Core §E.1)."""

Hex = Annotated[str, Field(pattern=r"^([0-9a-fA-F]{2})*$", max_length=8192)]


class Account(Model):
    """What one device is given. For `x509`: `identity` is the device's certificate, `key` its private key (PKCS#8),
    `server_certificate` the server's own (usage 3, domain-issued), all DER in hexadecimal."""

    uri: Annotated[str, Field(pattern=r"^coaps?://", max_length=200)]
    mode: Literal["psk", "x509", "none"] = "psk"
    identity: Annotated[str, Field(max_length=8192)] = ""
    key: Hex = ""
    server_certificate: Hex = ""
    lifetime_s: Annotated[int, Field(ge=1, le=30 * 86_400)] = 86_400
    server_id: Annotated[int, Field(ge=1, le=65_534)] = 1
    binding: Literal["U", "UQ"] = "U"

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.mode == "psk" and not (self.identity and self.key):
            raise ValueError("mode psk needs identity and key")
        if self.mode == "x509" and not (self.identity and self.key and self.server_certificate):
            raise ValueError("mode x509 needs identity, key and server_certificate")
        return self

    def security(self) -> dict[str, Value]:
        """Resources of object 0."""
        identity: Value = self.identity.encode() if self.mode != "x509" else bytes.fromhex(self.identity)
        return {
            "0": self.uri,
            "1": False,
            "2": _MODES[self.mode],
            "3": identity,
            "4": bytes.fromhex(self.server_certificate),
            "5": bytes.fromhex(self.key),
            "10": self.server_id,
        }

    def server(self) -> dict[str, Value]:
        """Resources of object 1."""
        return {"0": self.server_id, "1": self.lifetime_s, "6": False, "7": self.binding}


_accounts = TypeAdapter(dict[str, Account])


def read_accounts(path: Path) -> dict[str, Account]:
    """Raises ValueError naming what is wrong."""
    try:
        return _accounts.validate_python(json.loads(path.read_text()))
    except (OSError, ValueError, ValidationError) as error:
        raise ValueError(f"{path}: {error}") from None


class Bootstrap:
    """See the module's text."""

    def __init__(self, path: Path, operations: Operations, layer: MessageLayer, server: Server) -> None:
        self._path = path
        self._operations = operations
        self._layer = layer
        self._server = server
        self.finished = 0

    async def serve(self, exchange: Exchange) -> None:
        """Answer a bootstrap request and write the account: delete, security, server, finish."""
        peer = exchange.peer
        try:
            account = (await asyncio.to_thread(read_accounts, self._path)).get(peer.credential)
        except ValueError as error:
            log.error("bootstrap accounts cannot be read: %s", error)
            self._server.answer(exchange, codes.INTERNAL_ERROR)
            return
        if account is None:
            log.info("%s asks to bootstrap and has no account", peer)
            self._server.answer(exchange, codes.BAD_REQUEST)
            return
        self._server.answer(exchange, codes.CHANGED)
        try:
            await self._write(peer, account)
        except (NoAnswer, Refused) as error:
            log.warning("bootstrap of %s failed: %s", peer, error)
            return
        self.finished += 1
        log.info("%s is bootstrapped to %s", peer, account.uri)

    async def _write(self, peer: Peer, account: Account) -> None:
        operations = self._operations
        # former accounts only, and the device keeps the bootstrap account itself (§6.1.7.4); deleting "/" would take
        # its application objects too
        await operations.delete(peer, "/0")
        await operations.delete(peer, "/1")
        # instance 0 is the bootstrap account on most devices
        await operations.write(peer, "/0/1", account.security(), codes.TLV, replace=True)
        await operations.write(peer, "/1/0", account.server(), codes.TLV, replace=True)
        answer = await transfer(self._layer, peer, codes.POST, path_options("/bs"))
        if answer.code >> 5 != 2:
            raise Refused(answer.code, "bootstrap finish")
