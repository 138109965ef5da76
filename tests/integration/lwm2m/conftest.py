"""An adapter that runs on free ports, with a sink that records."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flexrelay_adapters.lwm2m import Lwm2mAdapter, make_adapter
from flexrelay_sdk.quality.check import NoNativeCodec
from flexrelay_sdk.testkit import RecordingSink, running

KEY = "00112233445566778899aabbccddeeff"

Serve = Callable[..., AbstractAsyncContextManager[Lwm2mAdapter]]


@pytest.fixture
def sink() -> RecordingSink:
    return RecordingSink()


@pytest.fixture
def serve(tmp_path: Path, sink: RecordingSink) -> Serve:
    """`async with serve(section…) as adapter`: plain CoAP on a free port unless told otherwise."""

    @asynccontextmanager
    async def serving(other: RecordingSink | None = None, **section: Any) -> AsyncIterator[Lwm2mAdapter]:
        settings: dict[str, Any] = {"coap": {"port": 0}, "ack_timeout_s": 1.0, **section}
        adapter = make_adapter("field", settings, tmp_path, NoNativeCodec())
        async with running(adapter, sink if other is None else other):
            yield adapter

    return serving
