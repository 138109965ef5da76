"""CSV rows: recorded frames, and a million mutations of them in the soak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flexrelay_adapters.files.codec import CsvCodec
from flexrelay_adapters.files.config import CsvMapping
from flexrelay_sdk import Codec
from flexrelay_sdk.testkit import CodecContract


class TestCsv(CodecContract):
    protocol = "files"
    frames = Path(__file__).parent / "frames"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        return CsvCodec(CsvMapping.model_validate(config))
