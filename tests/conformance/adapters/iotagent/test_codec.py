"""Ultralight and JSON frames: documented ones, and a million mutations of them in the soak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.fiware_json import FiwareJson
from flexrelay_adapters.iotagent import DialectCodec
from flexrelay_adapters.ultralight import Ultralight
from flexrelay_sdk import Codec
from flexrelay_sdk.mapping import JsonMapping
from flexrelay_sdk.testkit import CodecContract

FRAMES = Path(__file__).parent / "frames"


class TestUltralightCodec(CodecContract):
    protocol = "ultralight"
    frames = FRAMES / "ultralight"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        return DialectCodec(Ultralight(), JsonMapping.model_validate(config))


class TestFiwareJsonCodec(CodecContract):
    protocol = "fiware_json"
    frames = FRAMES / "fiware_json"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        return DialectCodec(FiwareJson(), JsonMapping.model_validate(config))
