"""A small HTTP server for operators; the full REST API is not here."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flexrelay.http.status import Gauge, StatusSource


class OperatorServer:
    """`/healthz` answers while the event loop turns, `/readyz` while every check is good (503 otherwise, with the
    checks that are not), `/metrics` in Prometheus' text form."""

    def __init__(self, sources: Sequence[StatusSource], host: str, port: int) -> None:
        self._sources = sources
        self._host = host
        self._port = port
        self._registry = CollectorRegistry()
        self._registry.register(_Figures(sources))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Serve until the block ends; gives the port (a free one when configured as 0)."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((self._host, self._port))
                listener.listen(64)
            except OSError as error:
                raise OSError(f"http.port {self._port} cannot be used: {error.strerror}; choose another port") from None
            config = uvicorn.Config(self._application(), log_level="warning", access_log=False, lifespan="off")
            server = _Server(config)
            task = asyncio.create_task(server.serve(sockets=[listener]), name="operator-http")
            try:
                yield int(listener.getsockname()[1])
            finally:
                server.should_exit = True
                await task

    def _application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/readyz", self._ready),
                Route("/metrics", self._metrics),
            ]
        )

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def _ready(self, _: Request) -> Response:
        checks = [check for source in self._sources for check in source.checks()]
        bad = [{"name": check.name, "detail": check.detail} for check in checks if not check.good]
        if bad:
            return JSONResponse({"status": "not ready", "failing": bad}, status_code=503)
        return JSONResponse({"status": "ready", "checks": [check.name for check in checks]})

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._registry), media_type="text/plain; version=0.0.4")


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The application handles signals, not its HTTP server."""
        yield


class _Figures(Collector):
    """Asks the sources at scrape time; the same name from several sources is one family."""

    def __init__(self, sources: Sequence[StatusSource]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for gauge in self._all():
            family = families.get(gauge.name)
            if family is None:
                kind = CounterMetricFamily if gauge.counter else GaugeMetricFamily
                family = families[gauge.name] = kind(f"flexrelay_{gauge.name}", gauge.help, labels=sorted(gauge.labels))
            family.add_metric([gauge.labels[name] for name in sorted(gauge.labels)], gauge.value)
        return list(families.values())

    def _all(self) -> Iterator[Gauge]:
        for source in self._sources:
            yield from source.gauges()
