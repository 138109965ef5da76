"""The adapter: callbacks → sink → answers, which are the only moment for a downlink."""

import json
from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flexrelay_adapters._commands import OnUpdate
from flexrelay_adapters._counters import Counters
from flexrelay_adapters._http import Refusal, body_of
from flexrelay_adapters._pushed import UponHttp
from flexrelay_adapters.sigfox.codec import SEQUENCE, SigfoxCodec, Uplink, acknowledgement, uplink
from flexrelay_adapters.sigfox.config import SigfoxConfig
from flexrelay_adapters.sigfox.downlinks import Downlinks
from flexrelay_sdk import Command, DecodeError, Frame, Sink
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.mapping import parse_json

PROTOCOL: Final = "sigfox"


class SigfoxAdapter(UponHttp):
    """`Adapter` and `CommandTarget` over the Sigfox backend's callbacks. `clock` is wall-clock UTC ms."""

    def __init__(self, config: SigfoxConfig, *, clock: Callable[[], int] = wall_ms) -> None:
        self.counters = Counters(config.name, SEQUENCE)
        super().__init__(config.name, config, SigfoxCodec(config, self.counters))
        self.protocol = PROTOCOL
        self.config = config
        self._clock = clock
        self._downlinks = Downlinks(config.commands, clock)

    @property
    def can_command(self) -> bool:
        return bool(self.config.commands)

    async def execute(self, command: Command, on_update: OnUpdate) -> None:
        """Keep the command until its device asks; tell its states until it is acked, failed or expired."""
        await self._downlinks.execute(command, on_update)

    async def run(self, sink: Sink) -> None:
        """Listen until cancelled. What the sink raises besides SinkUnavailable ends it."""
        routes = [
            Route(self.config.path, self._uplink, methods=["POST"]),
            Route(f"{self.config.path}/acknowledge", self._acknowledge, methods=["POST"]),
        ]
        await self._serve(routes, sink)

    async def _uplink(self, request: Request) -> Response:
        self._door.identify(request)
        body = await body_of(request, self.config, self._intake)
        message: Uplink | None = None
        try:
            message = uplink(parse_json(body))
        except DecodeError:
            pass  # its dead letter says why
        device = message.device if message is not None else ""
        await self._intake.put([Frame(PROTOCOL, device, body, self._clock(), self.config.path)], self._codec)
        if message is None or not message.asks:
            return Response(status_code=204)
        data = await self._downlinks.take(device)
        if data is None:
            return Response(status_code=204)
        named = json.loads(body)["device"]  # as the backend has written it
        return JSONResponse({named: {"downlinkData": data.hex()}})

    async def _acknowledge(self, request: Request) -> Response:
        self._door.identify(request)
        body = await body_of(request, self.config, self._intake)
        try:
            told = acknowledgement(parse_json(body))
        except DecodeError as error:
            raise Refusal(422, error.reason, error.message) from None
        await self._downlinks.answer(told)
        return Response(status_code=204)
