"""Registrations on their way to disk: many in one transaction, answered when they are stored."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.layer import Exchange
from flexrelay_adapters.lwm2m.coap.message import Option
from flexrelay_adapters.lwm2m.registration import Registration
from flexrelay_adapters.lwm2m.store import RegistrationStore, StoreFailed

log = logging.getLogger(__name__)

MAX_WAITING: Final = 20_000
RETRY_S: Final = 1.0
_Answer = tuple[Exchange, int, Sequence[Option], Callable[[], None] | None]


class Keeper:
    """The one task that writes. When full, or while nothing can be stored, messages are not answered and come again."""

    def __init__(
        self,
        store: RegistrationStore,
        *,
        answer: Callable[[Exchange, int, Sequence[Option]], None],
        release: Callable[[Exchange], None],
    ) -> None:
        self._store = store
        self._answer = answer
        self._release = release
        self._whole: dict[str, Registration] = {}
        self._seen: dict[str, Registration] = {}
        self._gone: set[str] = set()
        self._answers: list[_Answer] = []
        self._ready = asyncio.Event()
        self.stored = 0
        """Registrations and updates since the start."""

    def keep(
        self,
        exchange: Exchange,
        registration: Registration,
        *,
        whole: bool,
        answer: tuple[int, Sequence[Option]],
        then: Callable[[], None] | None,
    ) -> None:
        """Store a registration (`whole`: all of it, else that it was seen), answer, and `then` go on."""
        if len(self._answers) >= MAX_WAITING:
            self._release(exchange)
            return
        (self._whole if whole else self._seen)[registration.id] = registration
        self._answers.append((exchange, *answer, then))
        self._ready.set()

    def remove(self, exchange: Exchange | None, registration: Registration) -> None:
        """Take a registration off the disk, then answer 2.02 where somebody waits for it."""
        self._whole.pop(registration.id, None)
        self._seen.pop(registration.id, None)
        self._gone.add(registration.id)
        if exchange is not None:
            self._answers.append((exchange, codes.DELETED, (), None))
        self._ready.set()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._ready.wait()
            self._ready.clear()
            whole, seen, gone, answers = self._whole, self._seen, self._gone, self._answers
            self._whole, self._seen, self._gone, self._answers = {}, {}, set(), []
            rows = [registration.row() for registration in whole.values()]
            touched = [
                (r.seen_at, r.address[0], r.address[1], int(r.secure), r.lifetime_s, int(r.queue), r.id)
                for r in seen.values()
                if r.id not in whole
            ]
            ids = [(id_,) for id_ in gone]
            try:
                await loop.run_in_executor(self._store.executor, self._store.write, rows, touched, ids)
            except StoreFailed as error:
                log.warning("registrations cannot be stored: %s; they are not answered", error)
                self._whole = whole | self._whole
                self._gone |= gone
                for exchange, *_ in answers:
                    self._release(exchange)
                await asyncio.sleep(RETRY_S)
                self._ready.set()
                continue
            self.stored += len(answers)
            for exchange, code, options, then in answers:
                self._answer(exchange, code, options)
                if then is not None:
                    then()
