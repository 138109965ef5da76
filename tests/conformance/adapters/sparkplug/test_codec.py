"""Sparkplug frames: captured ones of sparkplug-client, and a million mutations of them in the soak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.sparkplug import SparkplugCodec
from flexrelay_adapters.sparkplug.config import MetricMapping
from flexrelay_sdk import Codec
from flexrelay_sdk.testkit import CodecContract


class TestSparkplugCodec(CodecContract):
    protocol = "sparkplug"
    frames = Path(__file__).parent / "frames"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        return SparkplugCodec({name: MetricMapping.model_validate(each) for name, each in config.items()})
