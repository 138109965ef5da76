"""The HTTP way: the network server posts each event; uplinks go to the sink, what a device is, is remembered, and other
events are only answered."""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flexrelay_adapters._counters import Counters
from flexrelay_adapters._http import body_of
from flexrelay_adapters._pushed import UponHttp
from flexrelay_adapters.lorawan.config import HttpWay, LorawanConfig
from flexrelay_adapters.lorawan.nameplate import Nameplates
from flexrelay_adapters.lorawan.servers import Server, Uplink
from flexrelay_sdk import Codec, DecodeError, DeviceFacts, Frame, Sink
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.mapping import parse_json

log = logging.getLogger(__name__)

PROTOCOL: Final = "lorawan"


class LorawanWebhook(UponHttp):
    """`Adapter` and `FactTeller` for the events that a network server posts. A 2xx means that the uplink is on disk;
    what the gateway could not take comes again where the network server repeats failed posts."""

    def __init__(
        self,
        config: LorawanConfig,
        server: Server,
        codec: Codec,
        counters: Counters,
        *,
        clock: Callable[[], int] = wall_ms,
    ) -> None:
        assert config.http is not None
        super().__init__(config.name, config.http, codec, section=f"{config.name}.http")
        self.protocol = PROTOCOL
        self.config: HttpWay = config.http
        self.counters = counters
        self._server = server
        self._clock = clock
        self._nameplates = Nameplates()

    def facts(self) -> Sequence[tuple[str, DeviceFacts]]:
        """See `FactTeller`."""
        return self._nameplates.told()

    async def run(self, sink: Sink) -> None:
        """Listen until cancelled. What the sink raises besides SinkUnavailable ends it."""
        routes = [
            Route(self.config.path, self._event, methods=["POST"]),
            Route(f"{self.config.path}/{{event}}", self._event, methods=["POST"]),
        ]
        await self._serve(routes, sink)

    async def _event(self, request: Request) -> Response:
        """ChirpStack names the event in the query (`?event=up`), The Things Stack in the path (`/up`)."""
        self._door.identify(request)
        body = await body_of(request, self.config, self._intake)
        event = request.query_params.get("event") or request.path_params.get("event") or "up"
        uplink = self._heard(event, body) if event in ("up", "status") else None
        if event != "up":
            return Response(status_code=204)
        if uplink is not None and uplink.empty:
            self.counters.note(uplink.device, uplink.f_cnt)
            return Response(status_code=204)
        credential = uplink.device if uplink is not None else ""
        frame = Frame(PROTOCOL, credential, body, self._clock(), self.config.path)
        (receipt,) = await self._intake.put([frame], self._codec)
        if uplink is not None:
            self.counters.note(uplink.device, uplink.f_cnt)
        return JSONResponse({"outcome": receipt.outcome.value, "reason": receipt.reason})

    def _heard(self, event: str, body: bytes) -> Uplink | None:
        """The uplink, when it is one; of a fault its dead letter says why. What it says of the device is remembered."""
        with suppress(DecodeError):
            document = parse_json(body)
            self._nameplates.learn(*self._server.about(event, document))
            return self._server.uplink(document) if event == "up" else None
        return None
