"""The operators' endpoints, asked over HTTP."""

from collections.abc import Iterable
from dataclasses import dataclass

import httpx
import pytest

from flexrelay.http import Check, Gauge, OperatorServer


@dataclass
class Part:
    org: str
    good: bool = True

    def checks(self) -> Iterable[Check]:
        yield Check(f"{self.org} journal", self.good, "" if self.good else "the disk is full: free space")

    def gauges(self) -> Iterable[Gauge]:
        yield Gauge("readings", "Readings stored", 7, {"org": self.org}, counter=True)


async def test_ready_health_and_metrics() -> None:
    parts = [Part("dso"), Part("a")]
    async with OperatorServer(parts, "127.0.0.1", 0).serving() as port, httpx.AsyncClient(timeout=60) as client:
        base = f"http://127.0.0.1:{port}"
        assert (await client.get(f"{base}/healthz")).json() == {"status": "alive"}
        assert (await client.get(f"{base}/readyz")).status_code == 200
        parts[1].good = False
        answer = await client.get(f"{base}/readyz")
        assert answer.status_code == 503
        assert answer.json()["failing"] == [{"name": "a journal", "detail": "the disk is full: free space"}]
        text = (await client.get(f"{base}/metrics")).text
        assert 'flexrelay_readings_total{org="dso"} 7.0' in text
        assert text.count("# TYPE flexrelay_readings_total counter") == 1


async def test_a_taken_port_is_named() -> None:
    async with OperatorServer([], "127.0.0.1", 0).serving() as port:
        with pytest.raises(OSError, match=f"http.port {port} cannot be used"):
            async with OperatorServer([], "127.0.0.1", port).serving():
                pass
