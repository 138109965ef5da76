"""A data folder with real gateways on a real embedded ledger, without adapters: frames are put into the sink."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from flexrelay.app import Gateway, Site, open_site
from flexrelay.config import load
from flexrelay.devices import DeviceRecord
from flexrelay.founding import OPERATOR, MarketClock, found, genesis, wallet_of
from flexrelay.ingest import NativeCodec
from flexrelay.ledger.embedded import EmbeddedLedger
from flexrelay.ledgers import EmbeddedHost
from flexrelay.market.calendar import days
from flexrelay.market.desk import Desk
from flexrelay_schemas.canonical import canonical
from flexrelay_schemas.did import Create, key_hash, operation_message, split_did
from flexrelay_schemas.keys import multikey
from flexrelay_schemas.reading import Reading, SignedReading
from flexrelay_sdk import Frame, Receipt
from flexrelay_sdk.clock import wall_ms
from support.contracts import sign

NETWORK = "pilot"
PASSPHRASE = SecretStr("a passphrase of the tests")
CODEC = NativeCodec()


@dataclass
class TestDevice:
    """A device with its own P-256 key."""

    __test__ = False
    did: str
    private: ec.EllipticCurvePrivateKey

    def frame(self, observed_at: int, seq: int, **registers: int) -> Frame:
        reading = Reading(
            did=self.did, key_version=1, network=NETWORK, observed_at=observed_at, registers=registers, seq=seq
        )
        signed = SignedReading(reading=reading, signature=sign(self.private, reading.message()))
        return Frame("test", split_did(self.did)[1], canonical(signed.model_dump()), wall_ms())


def write_site(folder: Path, orgs: tuple[str, ...], *, anchor_every_s: int = 900) -> None:
    (folder / "secrets").mkdir(parents=True)
    (folder / "secrets" / "flexrelay_passphrase").write_text(PASSPHRASE.get_secret_value())
    text = f'network = "{NETWORK}"\n'
    for org in orgs:
        text += f'[[gateways]]\norg = "{org}"\nfolder = "{org}"\n'
        text += f"[gateways.windows]\ngrace_s = 0\nanchor_every_s = {anchor_every_s}\n"
    (folder / "flexrelay.toml").write_text(text)


@asynccontextmanager
async def site(
    folder: Path, orgs: tuple[str, ...] = ("dso",), *, clock: MarketClock | None = None
) -> AsyncIterator[Site]:
    """Found the network when the folder is new, and run its gateways."""
    wallets = {org: wallet_of(folder, org, PASSPHRASE) for org in orgs}
    if not (folder / "flexrelay.toml").exists():
        write_site(folder, orgs)
        async with EmbeddedLedger.open(folder / "ledger", genesis(NETWORK, wallets)) as ledger:
            await found(EmbeddedHost(ledger), NETWORK, wallets, clock or MarketClock(), orgs[0])
    async with open_site(folder, load(folder)) as opened:
        yield opened


def operator_desk(gateway: Gateway) -> Desk:
    identity = gateway.wallet.find(OPERATOR)
    assert identity is not None
    return gateway.desk(identity.did)


async def publish_today(gateway: Gateway) -> None:
    """The calendar from yesterday to tomorrow in UTC days, as the market clock shows them."""
    today = datetime.fromtimestamp(gateway.market_now() / 1000, UTC).date()
    published = days("UTC", today - timedelta(days=1), today + timedelta(days=1))
    await operator_desk(gateway).do("calendar.publish", {"days": [day.model_dump() for day in published]})


async def register_device(gateway: Gateway, controller: Desk, name: str) -> TestDevice:
    """A device on the ledger, enrolled at this gateway."""
    private, following = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    operation = Create(
        network=NETWORK,
        kind="device",
        controller=controller.did,
        key=multikey(private.public_key()),
        next_key_hash=key_hash(multikey(following.public_key())),
        nonce=secrets.token_hex(16),
    )
    proof = sign(private, operation_message(operation))
    done = await controller.do("identity.register_device", {"operation": operation.model_dump(), "proof": proof})
    await gateway.devices.add(DeviceRecord(operation.did(), name, "meter"))
    await gateway.projections.reached(done.block)
    return TestDevice(operation.did(), private)


async def put(gateway: Gateway, *frames: Frame) -> list[Receipt]:
    return list(await gateway.ingest.put(frames, CODEC))


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 90.0) -> None:
    """Wait until an async function returns True. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the condition did not come true")
        await asyncio.sleep(0.02)
