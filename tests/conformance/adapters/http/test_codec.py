"""JSON and OCMF: recorded frames, and a million mutations of them in the soak."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from flexrelay_adapters.ocmf import OcmfCodec, OcmfConfig
from flexrelay_sdk import Codec
from flexrelay_sdk.mapping import JsonMapping, MappingCodec
from flexrelay_sdk.testkit import CodecContract


class TestHttpCodec(CodecContract):
    protocol = "http"
    frames = Path(__file__).parent / "frames"

    def codec(self, config: Mapping[str, Any]) -> Codec:
        if config["kind"] == "json":
            return MappingCodec(JsonMapping.model_validate(config))
        keys: dict[str, ec.EllipticCurvePublicKey] = {}
        for credential, text in config.get("keys", {}).items():
            key = load_der_public_key(bytes.fromhex(text))
            assert isinstance(key, ec.EllipticCurvePublicKey)
            keys[credential] = key
        return OcmfCodec(OcmfConfig(kind="ocmf"), keys or None)
