"""Callbacks of the Sigfox backend in their documented form, and a million mutations of them in the soak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.sigfox.codec import SigfoxCodec
from flexrelay_adapters.sigfox.config import SigfoxConfig
from flexrelay_sdk import Codec
from flexrelay_sdk.testkit import CodecContract


class TestSigfoxCodec(CodecContract):
    protocol = "sigfox"
    frames = Path(__file__).parent / "frames"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        return SigfoxCodec(SigfoxConfig.model_validate({"port": 0, "tokens_file": "tokens", **config}))
