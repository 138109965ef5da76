"""Captured lines of a hub decode as expected, and no line does anything worse than be refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_sdk import Codec
from flexrelay_sdk.mapping import JsonMapping, MappingCodec
from flexrelay_sdk.testkit import CodecContract


class TestAcmeHubCodec(CodecContract):
    protocol = "acme_hub"
    frames = Path(__file__).parent / "frames"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        return MappingCodec(JsonMapping.model_validate(config))
