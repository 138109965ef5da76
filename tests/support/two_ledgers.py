"""The embedded ledger and a Fabric channel side by side: every call goes to both, and both must answer alike.

Same organisations, collections and policies, same gateways' keys, same intents at the same times, and blocks cut at the
same places. What differs by nature are transaction ids, and what holds one: a Fabric id is compared as the embedded
ledger's id of the same transaction.
"""

import asyncio
import json
import random
import re
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.ledger.embedded import held

from flexrelay import network as native_networks
from flexrelay.founding import endorsement_policies, private_collections
from flexrelay.ledger.embedded import BlockCutting, Connection, EmbeddedLedger, Genesis, Organisation, key_identifier
from flexrelay.ledger.fabric import EndorsementMismatch, FabricLedger, IdentityFiles, load_profile
from flexrelay.ledger.fabric.verify import Replay, Report, replayed
from flexrelay.ledger.port import (
    Call,
    Checkpoint,
    Committed,
    LedgerError,
    LedgerUnavailable,
    OutcomeUnknown,
    Prepared,
    TxEvents,
    Validation,
)
from flexrelay_chaincode.writes import key_policy
from flexrelay_contracts.catalogue import TRANSACTIONS
from flexrelay_contracts.context import Creator
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.keys import multikey
from support.chain import Signer
from support.contracts import NETWORK, Party
from support.fabric import CHAINCODE, describe
from support.market import MarketNetwork
from support.network import Network

ORGS = ("dso", "agg-a", "agg-b")
_ID = re.compile(r"[0-9a-f]{64}")
_IDS = re.compile(rb"[0-9a-f]{64}")
_PATIENCE_S = 150.0
_CUT_MS = 60
VALUES: tuple[Any, ...] = (None, True, 0, -1, 2**53 - 1, "", "x", "*", [], {}, {"v": 1}, "2016-02-30", "f" * 64)


def description(channels: Sequence[str], fabric: str | None = None) -> native_networks.Spec:
    return describe(
        ORGS,
        fabric=fabric,
        module="support.any_time",
        collections=private_collections(ORGS),
        channels=[{"name": name, "block": {"timeout_ms": _CUT_MS}} for name in channels],
    )


Both = tuple[Prepared, Prepared]
"""The same transaction on the embedded ledger and on Fabric."""


@dataclass
class Tally:
    """What the histories were made of."""

    committed: Counter[str] = field(default_factory=Counter)
    executed: Counter[str] = field(default_factory=Counter)
    validations: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    private: int = 0
    queries: int = 0
    blocks: int = 0
    keys: int = 0
    private_hashes: int = 0
    events: int = 0

    def told(self) -> str:
        committed = +self.committed
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(committed.items()))
        refused = ", ".join(f"{name} {count}" for name, count in sorted(self.refusals.items()))
        judged = ", ".join(f"{name} {count}" for name, count in sorted(self.validations.items()))
        missing = ", ".join(sorted(set(TRANSACTIONS) - set(committed))) or "none"
        return (
            f"\ncommitted: {sum(committed.values())} of {len(committed)} types: {kinds}"
            f"\ntypes never committed as valid: {missing}"
            f"\njudged: {judged}"
            f"\nwith private data or transient inputs: {self.private}"
            f"\nexecuted and not submitted: {sum(self.executed.values())}; queries: {self.queries}"
            f"\nrefused: {sum(self.refusals.values())}: {refused}"
            f"\nblocks of calls that were made at once: {self.blocks}"
            f"\ncompared: {self.keys} keys, {self.private_hashes} hashes of private values, {self.events} events"
        )


@dataclass
class TwoLedgers:
    """Stands where `MemoryLedger` stands in the tests' network."""

    runner: asyncio.Runner
    chance: random.Random
    tally: Tally
    folder: Path
    """The embedded ledger's."""
    embedded: dict[str, Connection] = field(default_factory=dict)
    fabric: dict[str, FabricLedger] = field(default_factory=dict)
    ledger: EmbeddedLedger | None = None
    now: int = 1_700_000_000_000
    used: set[str] = field(default_factory=set)
    same_id: dict[str, str] = field(default_factory=dict)
    """Fabric's id of a transaction → the embedded ledger's."""
    submitted: list[Both] = field(default_factory=list)
    functions: dict[str, str] = field(default_factory=dict)
    said: list[tuple[bytes, Creator]] = field(default_factory=list)
    """Intents that were carried, and by whom."""
    net: Network | None = None
    lively: bool = True
    """Whether calls are accompanied by changed ones, repeated ones and conflicts."""
    block: int = 1
    """How many envelopes the embedded ledger's next block is to hold."""

    @property
    def parties(self) -> list[Party]:
        assert self.net is not None
        return list(self.net.parties.values())

    @property
    def creators(self) -> list[Creator]:
        assert self.net is not None
        return list(self.net.creators.values())

    # -- as MemoryLedger has it

    def run(self, intent: bytes, creator: Creator, transient: Mapping[str, bytes] | None = None) -> Mapping[str, Any]:
        if transient:
            self.tally.private += 1
            self._private_mischief(intent, creator, transient)
        both = self.prepare(intent, creator, transient)
        twins = [both]
        if self.lively and self.chance.random() < 0.12:  # the same intent twice: the second one dies of a conflict
            twins.append(self.prepare(intent, creator, transient))
        if self.lively and self.chance.random() < 0.08:  # the same envelope twice
            twins.append(both)
        found = self.submit(twins)
        assert found[0] is Validation.VALID, found
        return both[0].result

    def call(self, party: Party, function: str, creator: Creator, **args: Any) -> Mapping[str, Any]:
        self.used.add(function)
        while self.lively and self.chance.random() < 0.35:
            self._mischief(party, function, creator, args)
        intent = party.intent(function, args, deadline=self.now + 60_000)
        self.said.append((intent, creator))
        return self.run(intent, creator)

    def ask(self, function: str, **args: Any) -> Any:
        self.tally.queries += 1
        mine = self._either(lambda: self.embedded["dso"].evaluate(function, args))
        theirs = self._either(lambda: self.fabric["dso"].evaluate(function, args))
        self._same(mine, theirs, f"query {function}")
        if isinstance(mine, Exception):
            raise mine
        return mine

    @property
    def events(self) -> list[tuple[str, bytes]]:
        found = self.runner.run(_stream(self.embedded["dso"], self.submitted[-1][0].tx_id))
        return [(event.name, event.payload) for item in found for event in item.events]

    @property
    def private(self) -> dict[tuple[str, str], bytes]:
        """Private values by (collection, key), as the embedded ledger has them."""
        with closing(sqlite3.connect(self.folder / "private.db")) as database:
            rows = database.execute("SELECT collection, key, value FROM private").fetchall()
        return {(collection, bytes(key).decode()): value for collection, key, value in rows}

    # -- both at once

    def _mischief(self, party: Party, function: str, creator: Creator, args: Mapping[str, Any]) -> None:
        """Execute a call that is not quite this one on both, whatever comes of it; nothing is submitted."""
        kind, deadline = self.chance.random(), self.now + 60_000
        if kind < 0.1:
            deadline = self.now - 1
        elif kind < 0.3:
            party = self.chance.choice(self.parties)
        elif kind < 0.4:
            creator = self.chance.choice(self.creators)
        elif kind < 0.9:
            args = changed(args, self.chance)
        intent = party.intent(function, args, deadline=deadline)
        if 0.9 <= kind < 0.95 and self.said:
            intent, creator = self.chance.choice(self.said)
        elif kind >= 0.95:
            data = bytearray(intent)
            data[self.chance.randrange(len(data))] ^= 1
            intent = bytes(data)
        try:
            self.prepare(intent, creator)
        except (Refused, LedgerError):
            return
        self.tally.executed[function] += 1

    def _private_mischief(self, intent: bytes, creator: Creator, transient: Mapping[str, bytes]) -> None:
        """The same intent without its private inputs, with other ones, and through another organisation's gateway."""
        name, value = self.chance.choice(sorted(transient.items()))
        other = value.replace(b"0", b"1") if self.chance.random() < 0.5 else value[: self.chance.randrange(len(value))]
        for by, inputs in ((creator, {}), (creator, {name: other}), (self.chance.choice(self.creators), transient)):
            if not self.lively or self.chance.random() < 0.4:
                continue
            self.tally.private += 1
            try:
                self.prepare(intent, by, inputs)
            except (Refused, LedgerError):
                pass

    def prepare(self, intent: bytes, creator: Creator, transient: Mapping[str, bytes] | None = None) -> Both:
        """Raises the refusal that both have given."""
        call = Call(intent, dict(transient or {}))
        mine = self._either(lambda: self.embedded[creator.org].prepare(call))
        theirs = self._either(lambda: self.fabric[creator.org].prepare(call))
        if isinstance(mine, Prepared) and isinstance(theirs, Prepared):
            self.same_id[theirs.tx_id] = mine.tx_id
            self.functions[mine.tx_id] = json.loads(intent)["intent"]["function"]
            self._same(dict(mine.result), dict(theirs.result), self.functions[mine.tx_id])
            return mine, theirs
        self._same(mine, theirs, intent[:300].decode(errors="replace"))
        self.tally.refusals[mine.code if isinstance(mine, Refused) else type(mine).__name__] += 1
        raise mine

    def submit(self, several: Sequence[Both]) -> list[Validation]:
        """Submit in this order; both must judge alike. The embedded ledger's blocks end where Fabric's do."""
        places = self.runner.run(self._on_fabric([theirs for _, theirs in several]))
        groups: list[list[Prepared]] = []
        last = -1
        for (mine, _), place in zip(several, places, strict=True):
            if place.block != last:
                groups.append([])
            groups[-1].append(mine)
            last = place.block
        mine_places = [found for group in groups for found in self.runner.run(self._on_embedded(group))]
        for index, (both, mine, theirs) in enumerate(zip(several, mine_places, places, strict=True)):
            function = self.functions[both[0].tx_id]
            assert mine.validation is theirs.validation, (function, mine, theirs, both[0].tx_id)
            if index == [item[0].tx_id for item in several].index(both[0].tx_id):
                self.tally.validations[mine.validation.value] += 1
                self.tally.committed[function] += mine.validation is Validation.VALID
        self.submitted += several
        if len(several) > 1:
            self.tally.blocks += len(groups)
            assert len({found.block for found in mine_places}) == len({place.block for place in places}), "cut alike"
        return [found.validation for found in places]

    async def _on_fabric(self, several: Sequence[Prepared]) -> list[Committed]:
        for prepared in several:
            await self._ordered(prepared)
        found = []
        async with asyncio.timeout(_PATIENCE_S):
            for prepared in several:
                for ledger in self.fabric.values():
                    while (known := ledger.known(prepared.tx_id)) is None:  # noqa: ASYNC110 (it follows the blocks)
                        await asyncio.sleep(0.003)
                found.append(known)
        return found

    async def _ordered(self, prepared: Prepared) -> None:
        """One whose outcome is unknown may have been ordered; a second time in a block it would be a duplicate."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                try:
                    return await self.fabric["dso"].submit(prepared.envelope)
                except LedgerUnavailable:
                    await asyncio.sleep(0.2)
                except OutcomeUnknown:
                    return None

    async def fill(self, messages: int, seconds: float) -> None:
        """Stands where the embedded ledger waits for a block to be full: it holds what Fabric has in one."""
        assert self.ledger is not None
        async with asyncio.timeout(_PATIENCE_S):
            await held(self.ledger, self.block)

    async def _on_embedded(self, several: Sequence[Prepared]) -> list[Committed]:
        ledger, self.block = self.embedded["dso"], len(several)
        await asyncio.gather(*(ledger.submit(prepared.envelope) for prepared in several))
        found: list[Committed] = []
        async with asyncio.timeout(_PATIENCE_S):
            for prepared in several:
                while not isinstance(status := await ledger.status(prepared.tx_id), Committed):  # noqa: ASYNC110 (status)
                    await asyncio.sleep(0.002)
                found.append(status)
        return found

    def _either(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """The result, or the refusal or rejection. What fails for a reason that passes, as peers that are slow on a
        busy machine, is not here to be compared: it is asked again."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self.runner.run(work())
            except (Refused, LedgerError) as error:
                passes = isinstance(error, LedgerUnavailable) or (
                    isinstance(error, EndorsementMismatch) and error.behind
                )
                if not passes or time.monotonic() > until:
                    return error
                time.sleep(0.2)

    def _same(self, mine: Any, theirs: Any, what: str) -> None:
        assert self.normal(mine) == self.normal(theirs), f"{what}:\n{mine!r}\n{theirs!r}"

    def normal(self, value: Any) -> Any:
        """A result or refusal with Fabric's ids as the embedded ledger's."""
        if isinstance(value, Refused):
            value = ["refused", value.code, value.message, value.field]
        elif isinstance(value, Exception):
            value = ["failed", type(value).__name__]
        text = json.dumps(value, sort_keys=True)
        return json.loads(_ID.sub(lambda found: self.same_id.get(found[0], found[0]), text))

    def normal_bytes(self, data: bytes) -> bytes:
        return _IDS.sub(lambda found: self.same_id.get(found[0].decode(), found[0].decode()).encode(), data)

    # -- at the end

    def compare(self) -> Report:
        """All events, keys, values, key policies and hashes of private values; and Fabric's own chain verifies."""
        mine = self.runner.run(_stream(self.embedded["dso"], self.submitted[-1][0].tx_id))
        theirs = self.runner.run(_stream(self.fabric["dso"], self.submitted[-1][1].tx_id))
        known = [item for item in theirs if item.tx_id in self.same_id]
        assert [self._event(item) for item in known] == [self._event(item) for item in mine if item.block]
        self.tally.events += sum(len(item.events) for item in mine)
        twice = sum(item.validation is Validation.DUPLICATE_TXID for item in mine)
        self.tally.validations[Validation.DUPLICATE_TXID.value] += twice
        found = self.runner.run(self._verified())
        report, theirs_state = found
        assert report.ok and report.compared_state, report
        own_state = {key: (value, policy) for key, value, policy in _stored(self.folder)}
        assert own_state.keys() == theirs_state.keys(), sorted(own_state.keys() ^ theirs_state.keys())[:10]
        for key, value in own_state.items():
            assert value == theirs_state[key], (key, value, theirs_state[key])
        hashes = sum(key.startswith("\U0010ffff".encode()) for key in own_state)
        self.tally.keys += len(own_state) - hashes
        self.tally.private_hashes += hashes
        return report

    def _event(self, item: TxEvents) -> tuple[Any, ...]:
        events = tuple((event.name, self.normal_bytes(event.payload)) for event in item.events)
        return self.same_id.get(item.tx_id, item.tx_id), item.validation, item.timestamp, events

    async def _verified(self) -> tuple[Report, dict[bytes, tuple[bytes, str | None]]]:
        run: Replay
        async with replayed(self.fabric["dso"]) as run:
            rows = run.world.state(CHAINCODE).entries()
            state = {
                self.normal_bytes(key): (self.normal_bytes(value), None if policy is None else json.loads(policy)[0])
                for key, value, _, _, policy in rows
            }
            return run.report, state


def _stored(folder: Path) -> Iterator[tuple[bytes, bytes, str | None]]:
    """The embedded ledger's state; a key's policy as Fabric writes it."""
    with closing(sqlite3.connect(folder / "state.db")) as database:
        for key, value, policy in database.execute("SELECT key, value, policy FROM state"):
            yield key, value, None if policy is None else key_policy(json.loads(policy)).hex()


async def _stream(ledger: Connection | FabricLedger, last: str) -> list[TxEvents]:
    """All transactions up to the block of the last one."""
    status = await ledger.status(last)
    assert isinstance(status, Committed)
    found = []
    async for item in ledger.events(Checkpoint()):
        found.append(item)
        if item.block == status.block and item.last_in_block:
            break
    return found


def changed(args: Mapping[str, Any], chance: random.Random) -> dict[str, Any]:
    """The arguments with one place changed, missing, or one too many."""
    kind = chance.randrange(6)
    if kind == 0 or not args:
        return {**args, "more": 1}
    if kind == 1:
        gone = chance.choice(sorted(args))
        return {name: value for name, value in args.items() if name != gone}
    value: Any = json.loads(json.dumps(args))
    place, name = value, chance.choice(sorted(value))
    while isinstance(place[name], (dict, list)) and place[name] and chance.random() < 0.8:
        place = place[name]
        name = chance.choice(sorted(place)) if isinstance(place, dict) else chance.randrange(len(place))
    old = place[name]
    if isinstance(old, int) and not isinstance(old, bool) and chance.random() < 0.7:
        place[name] = chance.choice([old + 1, old - 1, -old, 2 * old, 0])
    elif isinstance(old, str) and old and chance.random() < 0.5:
        place[name] = chance.choice([old[:-1], old + "x", old[::-1]])
    else:
        place[name] = chance.choice(VALUES)
    found: dict[str, Any] = value
    return found


class Grounds:
    """Fresh pairs of networks, one for each channel of a native network that is up."""

    def __init__(
        self, native: native_networks.Network, folder: Path, chance: random.Random, tally: Tally | None = None
    ) -> None:
        self.tally = tally or Tally()
        self._native = native
        self._folder = folder
        self._chance = chance
        self._channels = [channel.name for channel in native.spec.channels]

    @contextmanager
    def network(self) -> Iterator[MarketNetwork]:
        """A bootstrapped network on both ledgers; compared as a whole at the end."""
        channel = self._channels.pop(0)
        folder = self._folder / channel
        gateways = {org: Party.new("gateway") for org in ORGS}
        keys = {org: multikey(party.private.public_key()) for org, party in gateways.items()}
        creators = {org: Creator(org, key_identifier(key)) for org, key in keys.items()}
        with asyncio.Runner() as runner:
            two = TwoLedgers(runner, self._chance, self.tally, folder / "embedded")
            operator = Party.new()
            net = MarketNetwork(two, operator, gateways, creators)  # type: ignore[arg-type]
            two.net = net
            net.home |= {operator.did: "dso", **{party.did: org for org, party in gateways.items()}}
            net.parties |= {party.did: party for party in (operator, *gateways.values())}
            stack = AsyncExitStack()
            runner.run(self._open(stack, two, channel, folder, gateways, keys))
            try:
                named = {name: list(members) for name, members in private_collections(ORGS).items()}
                net.call(operator, "network.bootstrap", **net.genesis() | {"collections": named})
                net.publish("2016-05-12", 14)
                yield net
                two.lively = False
                net.call(operator, "accounts.fund", account=f"actor:{operator.did}", micro_eur=1)  # all before it is in
                two.compare()
            finally:
                runner.run(stack.aclose())

    async def _open(
        self,
        stack: AsyncExitStack,
        two: TwoLedgers,
        channel: str,
        folder: Path,
        gateways: Mapping[str, Party],
        keys: Mapping[str, str],
    ) -> None:
        folder.mkdir(parents=True)
        genesis = Genesis(
            network=NETWORK,
            organisations=tuple(Organisation(name=org, gateways=(key,)) for org, key in keys.items()),
            policies=endorsement_policies(ORGS),
            collections=private_collections(ORGS),
            block_cutting=BlockCutting(timeout_ms=15),
        )
        opening = EmbeddedLedger.open(two.folder, genesis, clock=lambda: two.now)
        two.ledger = await stack.enter_async_context(opening)
        two.ledger._fill = two.fill  # type: ignore[method-assign]
        for org, party in gateways.items():
            signer = Signer(party)
            two.embedded[org] = two.ledger.connect(org, signer)
            certificate = folder / f"{org}.pem"
            certificate.write_bytes(self._native.enrol(org, f"{channel}-{secrets.token_hex(4)}", keys[org]))
            profile = load_profile(self._native.profile(org, channel))
            files = {"identity": IdentityFiles(certificate=str(certificate)), "peers": profile.own_peers}
            fabric = FabricLedger.open(profile.model_copy(update=files), signer, clock=lambda: two.now)
            two.fabric[org] = await stack.enter_async_context(fabric)
        await _settled(two.fabric)


async def _settled(ledgers: Mapping[str, FabricLedger]) -> None:
    """Until every peer finds the other organisations' (gossip needs a moment after the start)."""
    async with asyncio.timeout(_PATIENCE_S):
        for ledger in ledgers.values():
            while True:
                try:
                    await ledger.prepare(Call(b"no intent", endorsing_orgs=ORGS))
                except Refused:
                    break
                except LedgerError:
                    await asyncio.sleep(0.1)


__all__ = ["Grounds", "TwoLedgers", "changed", "description"]
