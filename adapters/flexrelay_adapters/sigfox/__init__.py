"""Sigfox by its backend's callbacks: uplinks with sequence numbers, and downlinks in the answer to a device that asks.

`SigfoxConfig` is the whole configuration; payloads are decoded declaratively.
"""

from flexrelay_adapters.sigfox.adapter import SigfoxAdapter
from flexrelay_adapters.sigfox.config import SigfoxConfig
from flexrelay_adapters.sigfox.factory import make_adapter

__all__ = ["SigfoxAdapter", "SigfoxConfig", "make_adapter"]
