"""The operators' endpoints on loopback: `/healthz`, `/readyz`, `/metrics`."""

from flexrelay.http.server import OperatorServer
from flexrelay.http.status import Check, Gauge, StatusSource

__all__ = ["Check", "Gauge", "OperatorServer", "StatusSource"]
