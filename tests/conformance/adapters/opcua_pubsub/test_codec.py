"""DataSetMessages in their documented formats, and a million mutations of them in the soak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.opcua_pubsub import DataSet, PubSubCodec
from flexrelay_sdk import Codec
from flexrelay_sdk.testkit import CodecContract


class TestPubSubCodec(CodecContract):
    protocol = "opcua_pubsub"
    frames = Path(__file__).parent / "frames"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        return PubSubCodec([DataSet.model_validate(each) for each in config["datasets"]])
