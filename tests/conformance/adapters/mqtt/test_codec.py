"""Plain JSON payloads: captured frames, and a million mutations of them in the soak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_sdk import Codec
from flexrelay_sdk.mapping import JsonMapping, MappingCodec
from flexrelay_sdk.testkit import CodecContract


class TestMqttCodec(CodecContract):
    protocol = "mqtt"
    frames = Path(__file__).parent / "frames"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        return MappingCodec(JsonMapping.model_validate(config))
