"""The embedded ledger end to end: a signed intent that writes one key, prepared, submitted, committed."""

import asyncio
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from flexrelay.bench import Result, cpu_seconds
from flexrelay.founding import GATEWAY, MarketClock, found, genesis, identity_in
from flexrelay.identity import Wallet, sign_intent
from flexrelay.ledger.embedded import EmbeddedLedger
from flexrelay.ledger.port import Call, Checkpoint, Ledger, NotFound, Validation
from flexrelay.ledgers import EmbeddedHost
from flexrelay_contracts.catalogue import TRANSACTIONS
from flexrelay_contracts.context import ContractContext
from flexrelay_contracts.runtime import Caller, Transaction
from flexrelay_contracts.runtime import Result as Answer
from flexrelay_contracts.state import key, save
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.intent import SignedIntent
from flexrelay_schemas.keys import verify
from flexrelay_schemas.model import Model
from flexrelay_sdk.clock import wall_ms

INTENTS = 2_000
_NETWORK = "bench"
_FUNCTION = "bench.put"
_IN_FLIGHT = 512
_ROUNDS = 8


class Put(Model):
    name: str
    value: str


def _put(ctx: ContractContext, caller: Caller, args: Put) -> Answer:
    save(ctx, key("bench", args.name), {"value": args.value})
    return {}


def run(intents: int = INTENTS) -> list[Result]:
    """ledger_embedded: intents per CPU-second of the whole process (both signatures verified, the gateway's made,
    contract executed, block written and fsynced, state applied); the best of a few rounds."""
    with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
        seconds, signed = asyncio.run(_measure(Path(folder), intents))
    rate, bare = intents / seconds, intents / _two_checks(signed)
    against = "two signature checks, nothing else"
    return [
        {"name": "ledger_embedded", "value": rate, "unit": "intents/CPU-s", "ratio": rate / bare, "against": against}
    ]


async def _measure(folder: Path, intents: int) -> tuple[float, list[tuple[str, bytes]]]:
    """(least CPU seconds of a round, the last round's intents with their actor's key)."""
    wallets = {"dso": Wallet(folder / "keys", SecretStr("bench"))}
    gateway = identity_in(wallets["dso"], _NETWORK, "gateway", GATEWAY)
    signer = wallets["dso"].signer(gateway.did)
    transactions: dict[str, Transaction[Any]] = {**TRANSACTIONS, _FUNCTION: Transaction(_FUNCTION, Put, _put)}
    best = float("inf")
    carried: list[bytes] = []
    opening = EmbeddedLedger.open(folder / "ledger", genesis(_NETWORK, wallets), transactions=transactions)
    async with opening as ledger:
        await found(EmbeddedHost(ledger), _NETWORK, wallets, MarketClock(), "dso")
        connection = ledger.connect("dso", signer)
        deadline = wall_ms() + 3_600_000
        for round_number in range(_ROUNDS):
            names = [f"{round_number}-{number}" for number in range(intents)]
            carried = [
                await sign_intent(signer, _NETWORK, _FUNCTION, {"name": n, "value": "x" * 100}, deadline, n)
                for n in names
            ]
            best = min(best, await _round(connection, carried))
    return best, [(gateway.key, intent) for intent in carried]


async def _round(ledger: Ledger, intents: list[bytes]) -> float:
    """CPU seconds from the first prepare to the last commit."""
    left = iter(intents)
    ids: set[str] = set()

    last = ""

    async def carry() -> None:
        nonlocal last
        for intent in left:
            prepared = await ledger.prepare(Call(intent))
            ids.add(prepared.tx_id)
            await ledger.submit(prepared.envelope)
            last = prepared.tx_id

    gc.collect()
    gc.disable()
    try:
        start = time.process_time()
        await asyncio.gather(*(carry() for _ in range(_IN_FLIGHT)))
        while isinstance(await ledger.status(last), NotFound):  # noqa: ASYNC110 (status is all the port has)
            await asyncio.sleep(0.001)
        seconds = time.process_time() - start
    finally:
        gc.enable()
    async for item in ledger.events(Checkpoint()):
        if item.tx_id in ids:
            if item.validation is not Validation.VALID:
                raise AssertionError(f"an intent of the benchmark was judged {item.validation.value}")
            ids.remove(item.tx_id)
        if not ids:
            break
    return seconds


def _two_checks(signed: list[tuple[str, bytes]]) -> float:
    """CPU seconds of checking every intent's signature twice: what no ledger of this kind can do without."""
    checks = []
    for multikey, data in signed:
        intent = SignedIntent.model_validate_json(data)
        checks.append((multikey, b64u_decode(intent.signature), intent.intent.message()))

    def check() -> None:
        for multikey, signature, message in checks:
            if not (verify(multikey, signature, message) and verify(multikey, signature, message)):
                raise AssertionError("a signature of the benchmark is not good")

    return cpu_seconds(check, rounds=3)
