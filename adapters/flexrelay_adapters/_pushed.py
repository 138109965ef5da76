"""The part of `Adapter` that is the same for all to whom readings are pushed by HTTP."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from starlette.routing import BaseRoute

from flexrelay_adapters._http import Intake, Listen, serving
from flexrelay_adapters._tokens import Doorkeeper, read_tokens
from flexrelay_sdk import Codec, Sink

PushPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9._-]+)+$", max_length=200)]


class PushedListen(Listen):
    """Where readings are pushed to, and who may."""

    path: PushPath
    tokens_file: Path | None = None


class UponHttp:
    """`section` is where the configuration names the listener's fields: the adapter's name unless told otherwise."""

    def __init__(
        self,
        name: str,
        listen: PushedListen,
        codec: Codec,
        *,
        section: str = "",
        certificates: Literal["common_name", "fingerprint"] = "common_name",
    ) -> None:
        self.name = name
        self.port = listen.port
        """Where it listens; a free one when it was configured as 0."""
        self._section = section or name
        self._listen = listen
        self._codec = codec
        self._door = Doorkeeper(name, listen.tokens_file, certificates)
        self._intake = Intake(listen)
        self._online = False
        self._closing = asyncio.Event()
        """Set when it stops: who waits for something is answered now."""

    def validate(self) -> None:
        """Check what the model cannot: the files. Raises ValueError naming the field."""
        self._listen.check_files(self._section)
        if self._listen.tokens_file is not None:
            try:
                read_tokens(self._listen.tokens_file)
            except ValueError as error:
                raise ValueError(f"{self._section}.{error}") from None

    @property
    def endpoint(self) -> str:
        return f"{self._listen.host}:{self.port}{self._listen.path}"

    @property
    def connected(self) -> bool:
        """Whether it listens."""
        return self._online

    def channels_for(self, credential: str) -> Sequence[str]:
        return [self._listen.path]

    def codec_for(self, channel: str) -> Codec | None:
        return self._codec if channel == self._listen.path else None

    async def _serve(self, routes: Sequence[BaseRoute], sink: Sink) -> None:
        """Listen until cancelled. What the sink raises besides SinkUnavailable ends it."""
        async with serving(self._listen, self.name, routes=routes) as port:
            self.port = port
            self._closing.clear()
            self._online = True
            try:
                await self._intake.run(sink)
            finally:
                self._online = False
                self._closing.set()
