"""Payloads of a Leshan client as captured, and a million mutations of them in the soak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.lwm2m import Lwm2mCodec
from flexrelay_sdk import Codec
from flexrelay_sdk.testkit import CodecContract


class TestLwm2mCodec(CodecContract):
    protocol = "lwm2m"
    frames = Path(__file__).parent / "frames"
    fuzz_inputs = 10_000

    def codec(self, config: Mapping[str, Any]) -> Codec:
        return Lwm2mCodec()
