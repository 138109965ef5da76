"""The HTTP transport of devices: measures by POST and GET, commands for those that ask, results.

200 is said only when the journal has it. What was refused for good gets 4xx (its dead letter is on disk), what could
not be stored 503.
"""

import asyncio
import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flexrelay_adapters._http import certificate_of
from flexrelay_adapters.iotagent.frame import MAX_ATTRIBUTE
from flexrelay_sdk import SinkUnavailable

if TYPE_CHECKING:
    from flexrelay_adapters.iotagent.adapter import IotAgentAdapter

RETRY_S: Final = "5"
WARN_S: Final = 10.0
BODY_S: Final = 30.0
log = logging.getLogger(__name__)

_UNKNOWN: Final = frozenset({"unknown_device", "no_identity"})


class MeasuresApi:
    """`/iot/d` or `/iot/json`: k the API key, i the device, t the time, d the measures of a GET, getCmd=1 asks."""

    def __init__(self, adapter: "IotAgentAdapter") -> None:
        self._adapter = adapter
        self._path = adapter.dialect.path
        self._relays = adapter.config.http.relays if adapter.config.http is not None else ()
        self._strangers = 0
        self._warn_at = 0.0

    def application(self) -> Starlette:
        path = self._path
        return Starlette(
            routes=[
                Route(path, self._measures, methods=["GET", "POST"]),
                Route(f"{path}/attrs/{{attribute}}", self._measures, methods=["POST"]),
                Route(f"{path}/commands", self._results, methods=["POST"]),
            ]
        )

    async def _measures(self, request: Request) -> Response:
        adapter = self._adapter
        adapter.stats.requests += 1
        who = self._who(request)
        if isinstance(who, Response):
            return who
        query = request.query_params
        payload: bytes | None
        if request.method == "GET":
            payload = query["d"].encode() if "d" in query else None
        else:
            body = await self._body(request)
            if isinstance(body, Response):
                return body
            payload = body
        polling = query.get("getCmd") == "1"
        if request.method == "POST" and not payload and polling:
            payload = None
        attribute = request.path_params.get("attribute", "")
        if len(attribute) > MAX_ATTRIBUTE:
            return self._refused(400, "WRONG_SYNTAX", f"an attribute's name has at most {MAX_ATTRIBUTE} characters")
        try:
            if payload is None:
                if not polling:
                    return self._refused(400, "MANDATORY_PARAMS_NOT_FOUND", "d is missing")
            elif not attribute and adapter.dialect.is_result(payload):
                await adapter.answered(who, payload)
            else:
                reason = await adapter.measured(
                    who, payload, self._path, attribute=attribute, time=query.get("t", "")[:64]
                )
                if reason:
                    status = 404 if reason in _UNKNOWN else 400
                    return JSONResponse({"name": reason.upper(), "message": "it is not taken"}, status_code=status)
        except SinkUnavailable as error:
            return self._later(error)
        commands = await adapter.polled(who) if polling else b""
        return Response(commands, media_type=adapter.dialect.media_type)

    async def _results(self, request: Request) -> Response:
        self._adapter.stats.requests += 1
        who = self._who(request)
        if isinstance(who, Response):
            return who
        payload = await self._body(request)
        if isinstance(payload, Response):
            return payload
        try:
            await self._adapter.answered(who, payload)
        except SinkUnavailable as error:
            return self._later(error)
        return Response(b"", media_type=self._adapter.dialect.media_type)

    def _who(self, request: Request) -> str | Response:
        """The credential, or why it is none."""
        query = request.query_params
        apikey, device = query.get("k", ""), query.get("i", "")
        missing = [name for name, value in (("i", device), ("k", apikey)) if not value]
        if missing:
            return self._refused(
                400, "MANDATORY_PARAMS_NOT_FOUND", f"Some of the mandatory params are missing: {missing}"
            )
        if len(device) > 200 or any(sign in device for sign in "/+#|@\0"):
            return self._refused(400, "WRONG_SYNTAX", "i is no device id")
        certificate = certificate_of(request)
        if certificate is not None:  # a connection can outlive it, and one device's is no other's
            if certificate.ends_at <= datetime.now(UTC):
                self._warn(device, "a certificate that has expired")
                return self._refused(401, "UNAUTHORIZED", "the certificate has expired")
            if certificate.common_name not in (device, *self._relays):
                self._warn(device, "another device's certificate")
                return self._refused(403, "WRONG_DEVICE", "the certificate is another device's")
        if not self._adapter.accepts(apikey):
            self._warn(device, "an API key that is neither configured nor provisioned")
            return self._refused(404, "GROUP_NOT_FOUND", "there is no service with this API key")
        return f"{apikey}/{device}"

    def _warn(self, device: str, why: str) -> None:
        """Now and then: who guesses keys must not fill the log. The key itself is not told."""
        self._strangers += 1
        now = time.monotonic()
        if now >= self._warn_at:
            self._warn_at = now + WARN_S
            log.warning(
                "%s: %d requests turned away, the last of device %r with %s",
                self._adapter.name,
                self._strangers,
                device[:80],
                why,
            )
            self._strangers = 0

    async def _body(self, request: Request) -> bytes | Response:
        """The whole body, or why there is none."""
        data, most = bytearray(), self._adapter.config.max_payload_bytes
        try:
            async with asyncio.timeout(BODY_S):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > most:
                        return self._refused(413, "TOO_LARGE", f"at most {most} bytes are taken")
        except TimeoutError:
            return self._refused(408, "TOO_SLOW", f"the body took more than {BODY_S:g} s")
        except ClientDisconnect:
            return self._refused(400, "TORN", "the body ended early")
        return bytes(data)

    def _refused(self, status: int, name: str, message: str) -> Response:
        self._adapter.stats.refused += 1
        return JSONResponse({"name": name, "message": message}, status_code=status)

    def _later(self, error: SinkUnavailable) -> Response:
        return JSONResponse(
            {"name": "UNAVAILABLE", "message": str(error)}, status_code=503, headers={"Retry-After": RETRY_S}
        )
