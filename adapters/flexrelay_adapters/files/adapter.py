"""The adapter: files → frames → sink, then the file is moved. The move is the acknowledgement."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from typing import Final

from flexrelay_adapters.files.config import FilesConfig
from flexrelay_adapters.files.folder import DropFolder, Found, report_of
from flexrelay_sdk import Codec, Decoded, DecodeError, Frame, Receipt, Sink, SinkUnavailable
from flexrelay_sdk.clock import wall_ms
from flexrelay_sdk.mapping import Mapping

log = logging.getLogger(__name__)

PROTOCOL: Final = "files"


class _Refusing:
    """Decodes what is no reading: says why, in its dead letter."""

    def __init__(self, error: DecodeError) -> None:
        self._error = error

    def decode(self, frame: Frame) -> Decoded:
        raise DecodeError(self._error.reason, self._error.message, self._error.field)


class FilesAdapter:
    """`Adapter` over a folder. `split` takes a file's content apart into frames, `codec` decodes each."""

    def __init__(self, config: FilesConfig, codec: Codec, split: Callable[[bytes], list[bytes]]) -> None:
        self.name = config.name
        self.protocol = PROTOCOL
        self.config = config
        self._codec = codec
        self._split = split
        self._folder = DropFolder(config.folder, config.settle_s)
        self._online = False
        mapping = config.codec
        self._apart = int(isinstance(mapping, Mapping) and mapping.may_use_receive_time)
        """ms between the receive times of a file's readings, where that is their instant: the same ones when a kill
        came before the move and the file is taken again, so that the gateway knows the readings."""

    def validate(self) -> None:
        """Raises ValueError when the folder is something else. One that is away (a mount) may come: `run` waits."""
        if self.config.folder.exists() and not self.config.folder.is_dir():
            raise ValueError(f"{self.name}.folder: {self.config.folder} is no folder")

    @property
    def endpoint(self) -> str:
        return str(self.config.folder)

    @property
    def connected(self) -> bool:
        """Whether the folder is there."""
        return self._online

    def channels_for(self, credential: str) -> Sequence[str]:
        """The folder of one sender. Raises ValueError for a credential that is no folder's name."""
        if not credential or "/" in credential or "\0" in credential or credential.startswith("."):
            raise ValueError(f"credential {credential[:80]!r} cannot be a folder")
        return [f"{self.config.folder}/in/{credential}/"]

    def codec_for(self, channel: str) -> Codec | None:
        return self._codec if channel.startswith("in/") else None

    async def run(self, sink: Sink) -> None:
        """Look, take, move, until cancelled. What the sink raises besides SinkUnavailable ends it."""
        complained = False
        try:
            while True:
                try:
                    await asyncio.to_thread((self.config.folder / "in").mkdir, exist_ok=True)
                    whole = await asyncio.to_thread(self._folder.look)
                    self._online, complained = True, False
                    for found in whole:
                        try:
                            await self._take(found, sink)
                        except OSError as error:
                            await asyncio.to_thread(self._folder.leave, found.path, error)
                except OSError as error:
                    self._online = False
                    if not complained:
                        log.warning("%s: the folder cannot be read or written: %s", self.name, error)
                    complained = True
                except SinkUnavailable as error:
                    log.warning("%s: the gateway cannot store (%s); the files stay where they are", self.name, error)
                    await asyncio.sleep(self.config.backoff_s)
                    continue
                await asyncio.sleep(self.config.poll_s)
        finally:
            self._online = False

    async def _take(self, found: Found, sink: Sink) -> None:
        try:
            content = await asyncio.to_thread(self._folder.read, found, self.config.max_file_bytes)
        except FileNotFoundError:
            return  # its sender took it back
        if content is None:
            return
        channel = f"in/{found.credential}/{os.fsencode(found.path.name).decode(errors='backslashreplace')}"
        now = wall_ms()
        problem: DecodeError | None = None
        parts: list[bytes] = []
        if len(content) > self.config.max_file_bytes:
            problem = DecodeError("oversized", f"{found.size} bytes, at most {self.config.max_file_bytes} are taken")
        else:
            try:
                parts = self._split(content)
            except DecodeError as error:
                problem = error
        if problem is not None:
            letter = Frame(PROTOCOL, found.credential, content[: self.config.max_row_bytes], now, channel)
            receipts = list(await sink.put([letter], _Refusing(problem)))
        else:
            if self._apart:
                now = await asyncio.to_thread(self._folder.taken_at, found, now)
            receipts = await self._put(parts, found, channel, now, sink)
        outcomes = [(receipt.outcome.value, receipt.reason) for receipt in receipts]
        good = not any(outcome == "dead_letter" for outcome, _ in outcomes)
        report = report_of(outcomes, str(problem) if problem is not None else "")
        moved = await asyncio.to_thread(self._folder.finish, found, good, content, report)
        log.info("%s: %s: %d readings", self.name, moved, len(outcomes))

    async def _put(self, parts: list[bytes], found: Found, channel: str, now: int, sink: Sink) -> list[Receipt]:
        receipts: list[Receipt] = []
        for start in range(0, len(parts), self.config.batch):
            frames = [
                Frame(PROTOCOL, found.credential, part, now + number * self._apart, channel)
                for number, part in enumerate(parts[start : start + self.config.batch], start)
            ]
            receipts += await sink.put(frames, self._codec)
        return receipts
