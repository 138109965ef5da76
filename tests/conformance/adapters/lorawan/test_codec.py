"""Uplinks of both network servers: frames in their documented formats, and a million mutations of them in the soak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.lorawan.codec import LorawanCodec
from flexrelay_adapters.lorawan.config import PortMapping
from flexrelay_adapters.lorawan.servers import SERVERS
from flexrelay_sdk import Codec
from flexrelay_sdk.testkit import CodecContract


class TestLorawanCodec(CodecContract):
    protocol = "lorawan"
    frames = Path(__file__).parent / "frames"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        ports = [PortMapping.model_validate(port) for port in config["ports"]]
        return LorawanCodec(SERVERS[config["server"]], ports)
