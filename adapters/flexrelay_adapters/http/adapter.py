"""The adapter: requests → sink → answers, and commands for devices that fetch them."""

import asyncio
import hashlib
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flexrelay_adapters._commands import OnUpdate, parse_result
from flexrelay_adapters._elements import elements, lines
from flexrelay_adapters._http import Refusal, body_of
from flexrelay_adapters._instants import counting
from flexrelay_adapters._pushed import UponHttp
from flexrelay_adapters.http.config import HttpConfig
from flexrelay_adapters.http.instants import Instants
from flexrelay_adapters.http.mailbox import Mailbox
from flexrelay_adapters.http.outcomes import Answer, Key, Outcomes
from flexrelay_sdk import Codec, Command, Decoded, DecodeError, Frame, Outcome, Receipt, Sink
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.mapping import find, parse_json, parse_path

log = logging.getLogger(__name__)

PROTOCOL: Final = "http"
_DEVICE: Final = re.compile(r"[^/\x00-\x1f\x7f]{1,200}")
_MOST_WAIT_S: Final = 60.0


class _Torn:
    """Decodes what could not be taken apart: says why, in its dead letter."""

    def __init__(self, error: DecodeError) -> None:
        self._error = error

    def decode(self, frame: Frame) -> Decoded:
        raise DecodeError(self._error.reason, self._error.message, self._error.field)


class HttpAdapter(UponHttp):
    """`Adapter` and `CommandTarget` that listens for requests. `clock` is wall-clock UTC ms."""

    def __init__(self, config: HttpConfig, codec: Codec, *, clock: Callable[[], int] = wall_ms) -> None:
        super().__init__(config.name, config, codec, certificates=config.certificates)
        self.protocol = PROTOCOL
        self.config = config
        self._clock = clock
        self._apart = config.may_use_receive_time
        self._newest: dict[str, int] = {}
        """Sender → the last instant that it was given, where readings get the time of their reception."""
        self._instants = (
            Instants(config.state, config.idempotency_keys, config.idempotency_s)
            if config.state is not None and self._apart
            else None
        )
        self._outcomes = Outcomes(config.idempotency_keys, config.idempotency_bytes, config.idempotency_s)
        self._mailbox = Mailbox(config.command_repeat_s, clock)
        self._elements = parse_path(config.elements) if config.elements is not None else None
        self._device = parse_path(config.device) if config.device is not None else ()

    @property
    def can_command(self) -> bool:
        return self.config.commands is not None

    def channels_for(self, credential: str) -> Sequence[str]:
        identity, slash, device = credential.partition("/")
        return [f"{self.config.path}/{device}" if slash and identity in self.config.relays else self.config.path]

    def codec_for(self, channel: str) -> Codec | None:
        path = self.config.path
        return self._codec if channel == path or channel.startswith(path + "/") else None

    async def run(self, sink: Sink) -> None:
        """Listen until cancelled. What the sink raises besides SinkUnavailable ends it."""
        if self._instants is not None:
            self._instants.open()
        try:
            await self._serve(self._routes(), sink)
        finally:
            if self._instants is not None:
                await self._instants.close()

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """Keep the command for its device and tell its states until it is acked, failed or expired."""
        if self.config.commands is None:
            raise ValueError(f"{self.name} has no path for commands; set `commands`")
        await self._mailbox.execute(command, on_update)

    def _routes(self) -> list[Route]:
        path, commands = self.config.path, self.config.commands
        routes = [
            Route(path, self._one, methods=["POST"]),
            Route(f"{path}/batch", self._batch, methods=["POST"]),
            Route(f"{path}/{{device:path}}/batch", self._batch, methods=["POST"]),
            Route(f"{path}/{{device:path}}", self._one, methods=["POST"]),
        ]
        if self.config.webhook_origins:
            routes.insert(0, Route(path, self._handshake, methods=["OPTIONS"]))
        if commands is not None:
            routes += [
                Route(commands, self._fetch, methods=["GET"]),
                Route(f"{commands}/results", self._answer, methods=["POST"]),
                Route(f"{commands}/{{device:path}}/results", self._answer, methods=["POST"]),
                Route(f"{commands}/{{device:path}}", self._fetch, methods=["GET"]),
            ]
        return routes

    def _credential(self, request: Request) -> str:
        """Of a device or a relay. Raises Refusal: 401, 403 for a path that is none of its own."""
        identity = self._door.identify(request)
        device = request.path_params.get("device", "")
        if identity in self.config.relays:
            if not _DEVICE.fullmatch(device):
                raise Refusal(403, "no_device", "a relay sends to the path of one of its devices")
            return f"{identity}/{device}"
        if device and device != identity:
            raise Refusal(403, "not_yours", "a device sends to its own path")
        return identity

    async def _one(self, request: Request) -> Response:
        identity = self._door.identify(request)
        if identity in self.config.platforms:
            if request.path_params.get("device"):
                raise Refusal(403, "not_yours", "a platform names the device in the body")
            return await self._answered(request, identity, lambda body: self._of_platform(identity, body))
        credential = self._credential(request)
        return await self._answered(request, credential, lambda body: [(credential, body)], single=True)

    async def _batch(self, request: Request) -> Response:
        credential = self._credential(request)
        if credential in self.config.platforms:
            raise Refusal(403, "not_yours", "a platform sends to the path itself")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        by_lines = kind in ("application/x-ndjson", "application/ndjson", "text/plain")
        most = self.config.max_batch

        def split(body: bytes) -> list[tuple[str, bytes]]:
            return [(credential, each) for each in (lines(body, most) if by_lines else elements(body, (), most))]

        return await self._answered(request, credential, split)

    def _of_platform(self, platform: str, body: bytes) -> list[tuple[str, bytes]]:
        """Each element with the credential of the device that it names; "" where it names none, which the gateway
        refuses. Raises DecodeError for a body that is no list of them."""
        found = [body] if self._elements is None else elements(body, self._elements, self.config.max_batch)
        return [(self._named(platform, each), each) for each in found]

    def _named(self, platform: str, element: bytes) -> str:
        try:
            device = find(parse_json(element), self._device)
        except DecodeError:
            return platform  # its dead letter says why
        name = str(device) if type(device) in (str, int) else ""
        return f"{platform}/{name}" if _DEVICE.fullmatch(name.replace("/", "")) else platform

    async def _answered(
        self,
        request: Request,
        sender: str,
        split: Callable[[bytes], list[tuple[str, bytes]]],
        single: bool = False,
    ) -> Response:
        body = await body_of(request, self.config, self._intake, sender)
        name = request.headers.get("idempotency-key")
        if name is None:
            return _response(await self._put(request, sender, body, split, single, None))
        key = (sender, request.url.path, name if len(name) <= 200 else hashlib.sha256(name.encode()).hexdigest() * 4)
        known = self._outcomes.begin(key, body)
        if known is not None:
            return _response(known, repeated=True)
        try:
            answer = await self._put(request, sender, body, split, single, key)
        except BaseException:
            self._outcomes.forget(key)
            raise
        self._outcomes.end(key, answer)
        return _response(answer)

    async def _put(
        self,
        request: Request,
        sender: str,
        body: bytes,
        split: Callable[[bytes], list[tuple[str, bytes]]],
        single: bool,
        key: Key | None,
    ) -> Answer:
        channel = request.url.path
        try:
            parts = split(body)
        except DecodeError as error:
            torn = await self._intake.put([Frame(PROTOCOL, sender, body, self._clock(), channel)], _Torn(error))
            return Answer(422, json.dumps(_told(torn[0])).encode())
        instants = await self._received(sender, [credential for credential, _ in parts], key, body)
        frames = [
            Frame(PROTOCOL, credential, payload, at, channel)
            for (credential, payload), at in zip(parts, instants, strict=True)
        ]
        receipts = await self._intake.put(frames, self._codec)
        if single:
            status = 422 if receipts[0].outcome is Outcome.DEAD_LETTER else 200
            return Answer(status, json.dumps(_told(receipts[0])).encode())
        return Answer(200, json.dumps({"outcomes": [_told(receipt) for receipt in receipts]}).encode())

    async def _received(self, sender: str, credentials: Sequence[str], key: Key | None, body: bytes) -> list[int]:
        """When each element came. Where that is its reading's instant, no two of one credential are the same: two
        readings of one instant that differ are what a cheat looks like."""
        now = self._clock()
        if not self._apart:
            return [now] * len(credentials)
        order, seen = [], Counter[str]()
        for credential in credentials:
            order.append(seen[credential])
            seen[credential] += 1
        self._newest = counting(self._newest, now)
        first = self._newest.get(sender, now - 1) + 1
        self._newest[sender] = first + max(order, default=0)
        if key is not None and self._instants is not None:
            first = await self._instants.first(key, body, first)
        return [first + place for place in order]

    async def _handshake(self, request: Request) -> Response:
        """CloudEvents, "HTTP 1.1 Web Hooks for Event Delivery", section 4: may you send here?"""
        origin = request.headers.get("webhook-request-origin", "")
        if origin not in self.config.webhook_origins:
            raise Refusal(403, "not_yours", "this origin may not send here")
        headers = {"webhook-allowed-origin": origin, "webhook-allowed-rate": "*", "allow": "POST"}
        return Response(status_code=200, headers=headers)

    async def _fetch(self, request: Request) -> Response:
        credential = self._credential(request)
        try:
            wait_s = float(request.query_params.get("wait_s", "0"))
        except ValueError:
            wait_s = math.nan
        if math.isnan(wait_s):
            raise Refusal(400, "bad_wait", "wait_s is a number of seconds")
        wait_s = min(max(wait_s, 0.0), _MOST_WAIT_S)
        fetching = asyncio.create_task(self._mailbox.fetch(credential, wait_s), name=f"{self.name} commands")
        gone = asyncio.create_task(_gone(request), name=f"{self.name} command listener")
        closing = asyncio.create_task(self._closing.wait(), name=f"{self.name} command end")
        try:
            await asyncio.wait({fetching, gone, closing}, return_when=asyncio.FIRST_COMPLETED)
            commands = fetching.result() if fetching.done() else []
        finally:
            for task in (fetching, gone, closing):
                task.cancel()
        return Response(b'{"commands":[' + b",".join(commands) + b"]}", media_type="application/json")

    async def _answer(self, request: Request) -> Response:
        credential = self._credential(request)
        body = await body_of(request, self.config, self._intake, credential)
        try:
            result = parse_result(body)
        except ValueError as error:
            raise Refusal(422, "malformed", str(error)[:200]) from None
        await self._mailbox.answer(credential, result)
        return Response(status_code=204)


async def _gone(request: Request) -> None:
    """Returns when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _told(receipt: Receipt) -> dict[str, Any]:
    told: dict[str, Any] = {"outcome": receipt.outcome.value}
    if receipt.outcome is Outcome.STORED:
        told["position"] = receipt.position
    if receipt.reason:
        told["reason"] = receipt.reason
    return told


def _response(answer: Answer, repeated: bool = False) -> Response:
    headers = {"idempotent-replayed": "true"} if repeated else None
    return Response(answer.body, answer.status, media_type="application/json", headers=headers)
