"""Log lines tell whose gateway they come from: one process runs several, with adapters of the same name."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s%(gateway)s: %(message)s"

_ORG: ContextVar[str] = ContextVar("flexrelay_log_org", default="")


@contextmanager
def of_gateway(org: str) -> Iterator[None]:
    """What is logged in the block is marked with the organisation, and what the tasks say that are started in it."""
    token = _ORG.set(org)
    try:
        yield
    finally:
        _ORG.reset(token)


def log_to_stderr(level: int) -> None:
    """All loggers, from `level` up, in FORMAT."""
    handler = logging.StreamHandler()
    handler.addFilter(_mark)
    logging.basicConfig(level=level, format=FORMAT, handlers=[handler])


def _mark(record: logging.LogRecord) -> bool:
    org = _ORG.get()
    record.gateway = f" [{org}]" if org else ""
    return True
