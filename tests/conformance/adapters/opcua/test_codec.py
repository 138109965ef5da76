"""The codec's contract, on frames captured from node-opcua."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.opcua import NodeCodec, OpcuaConfig
from flexrelay_sdk import Codec
from flexrelay_sdk.testkit import CodecContract


class TestNodeCodec(CodecContract):
    protocol = "opcua"
    frames = Path(__file__).parent / "frames"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        return NodeCodec(OpcuaConfig.from_section("captured", config))
