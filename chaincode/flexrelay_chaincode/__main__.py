"""`python -m flexrelay_chaincode --config FILE`: serve the contracts to a peer until SIGTERM or SIGINT."""

import argparse
import asyncio
import gc
import logging
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from flexrelay_chaincode.config import ChaincodeConfig, ConfigError, load, split_address
from flexrelay_chaincode.health import serve_health
from flexrelay_chaincode.logs import set_up
from flexrelay_chaincode.server import ChaincodeServer

_LOG: Final = logging.getLogger("flexrelay_chaincode")
_YOUNG: Final = 10_000
"""Objects between two looks of the collector (Python's default: 700); a call leaves few cycles behind."""
_SWITCH_S: Final = 0.001
"""How long one thread may keep the interpreter while the loop waits for it (Python's default: 5 ms)."""


async def serve(config: ChaincodeConfig) -> None:
    """Until a signal comes; then calls that run may end within their deadline. Raises ConfigError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        server = ChaincodeServer(config)
        if config.health is not None:
            host, port = split_address(config.health)
            try:
                health = await serve_health(host, port, server)
            except OSError as error:
                raise ConfigError(f"health: cannot listen on {config.health}: {error.strerror}") from None
            stack.callback(health.close)
        await stack.enter_async_context(server)
        await stop.wait()
        _LOG.info("stopping: calls that run may end")


def main() -> int:
    parser = argparse.ArgumentParser(prog="flexrelay_chaincode", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="TOML file, see flexrelay_chaincode.config")
    arguments = parser.parse_args()
    try:
        config = load(arguments.config)
        set_up(config.log_level)
        sys.setswitchinterval(_SWITCH_S)
        gc.freeze()  # what is loaded stays: the collector need not look at it again and again
        gc.set_threshold(_YOUNG, 10, 10)
        asyncio.run(serve(config))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
