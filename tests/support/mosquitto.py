"""Fixtures with a real Mosquitto; without one the tests say why they did not run."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flexrelay.demo.broker import Account, Mosquitto, Tls, mosquitto_path

WHY = "Mosquitto is not installed (Debian: apt install mosquitto): the tests against a real broker did not run"


def require_mosquitto() -> str:
    """The program's path; skips the test (in CI: fails it) when there is none."""
    program = mosquitto_path()
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(WHY)
        pytest.skip(WHY)
    return program


@asynccontextmanager
async def mosquitto(
    folder: Path,
    accounts: Sequence[Account],
    *,
    tls: Tls | None = None,
    max_inflight: int = 2000,
    max_payload_bytes: int = 1024 * 1024,
) -> AsyncIterator[Mosquitto]:
    """A Mosquitto of our own on a free loopback port, stopped at the end."""
    broker = Mosquitto(
        folder,
        accounts,
        program=require_mosquitto(),
        tls=tls,
        max_inflight=max_inflight,
        max_payload_bytes=max_payload_bytes,
    )
    try:
        await broker.start()
        yield broker
    finally:
        await broker.stop()
