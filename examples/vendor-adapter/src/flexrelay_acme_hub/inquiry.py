"""One question to a hub, on a connection of its own: who is there, what was kept, what time it is."""

from collections.abc import AsyncIterator

from flexrelay_acme_hub.config import AcmeHubConfig
from flexrelay_acme_hub.link import Link


async def ask(config: AcmeHubConfig, token: str, question: str) -> AsyncIterator[list[bytes]]:
    """The words of each line of the answer. Raises LinkLost."""
    link = await Link.open(config, token, "ASK")
    try:
        link.say(question)
        await link.flush()
        while (line := await link.line()) != b"END":
            yield line.split(b" ", 2)
    finally:
        await link.close()
