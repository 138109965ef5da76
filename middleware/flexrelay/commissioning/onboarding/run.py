"""Carrying out an onboarding: in groups, through the outbox, each device to one recorded end.

What is done already is known by the ledger and the enrolments themselves, so an onboarding that was killed is simply
started again. Intents have ids by their device's operation: what an earlier run left in the outbox is waited for, not
signed anew.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flexrelay.app import Gateway, Site
from flexrelay.commissioning.claims import SignedCreate
from flexrelay.commissioning.devicekeys import proven_operation
from flexrelay.commissioning.devices import FOLDER
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.onboarding.presharedkeys import KeyBook, Places, places_of
from flexrelay.commissioning.onboarding.report import DeviceReport, Ended, OnboardingReport
from flexrelay.commissioning.onboarding.wanted import OnboardingPlan, Step, Wanted
from flexrelay.config import load
from flexrelay.devices import DeviceRecord
from flexrelay.identity import KeyFileError
from flexrelay.market.desk import Done, IntentExpired
from flexrelay.outbox import OutboxFull, State
from flexrelay_contracts.refusal import Refused
from flexrelay_schemas.did import operation_hash

GROUP: Final = 256
"""Devices whose intents are under way together: far below the outbox's capacity, enough for the relay and a block."""

LIFETIME_MS: Final = 600_000
_FULL_S: Final = 0.5
_ATTEMPTS: Final = 100

Progress = Callable[[int, int, int], None]
"""(devices that have ended, failed ones among them, all)."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A device whose keys and operation are on disk. `signed` None: it is on the ledger already."""

    wanted: Wanted
    did: str
    signed: SignedCreate | None
    secrets: tuple[Path, ...]


async def onboard(
    site: Site, plan: OnboardingPlan, *, group: int = GROUP, progress: Progress | None = None
) -> OnboardingReport:
    """Onboard what the plan holds (`Level.ACTING`). One device's failure stands in the report and stops no other.

    Raises CommissioningError when the plan has problems, and what the store and the ledger raise when they cannot be
    used; then start again.
    """
    if plan.problems:
        raise CommissioningError(f"{len(plan.problems)} problems, nothing is done; the first: {plan.problems[0]}")
    if group < 1:
        raise CommissioningError("a group has at least one device")
    return await _Onboarding(site, plan, progress or (lambda done, failed, total: None)).run(group)


class _Onboarding:
    def __init__(self, site: Site, plan: OnboardingPlan, progress: Progress) -> None:
        self._site = site
        self._plan = plan
        self._progress = progress
        self._places: dict[str, Places] = places_of(site.folder, load(site.folder))
        self._book = KeyBook(self._places.values())
        self._ended: dict[int, DeviceReport] = {}
        self._failed = 0

    async def run(self, size: int) -> OnboardingReport:
        began = time.monotonic()
        todo = []
        for wanted in self._plan.wanted:
            if wanted.step is Step.DONE and not self._lacks_key(wanted):
                self._end(wanted, Ended.ALREADY, wanted.did, self._secrets(wanted))
            else:
                todo.append(wanted)
        groups = [todo[start : start + size] for start in range(0, len(todo), size)]
        following = asyncio.create_task(self._prepare(groups[0])) if groups else None
        try:
            for number in range(len(groups)):
                assert following is not None
                ready = await following
                rest = groups[number + 1 : number + 2]  # its keys are made while this one is under way
                following = asyncio.create_task(self._prepare(rest[0])) if rest else None
                await self._carry(ready)
        finally:
            if following is not None:
                following.cancel()
        devices = tuple(self._ended[wanted.line] for wanted in self._plan.wanted)
        return OnboardingReport(devices, self._plan.notes, round(time.monotonic() - began, 3))

    async def _prepare(self, group: Sequence[Wanted]) -> list[_Ready]:
        """Everything that must be on disk before the ledger hears of the devices."""
        made = await asyncio.gather(
            *(asyncio.to_thread(self._made, wanted) for wanted in group), return_exceptions=True
        )
        ready = []
        for wanted, found in zip(group, made, strict=True):
            if isinstance(found, _Ready):
                ready.append(found)
            elif isinstance(found, CommissioningError | KeyFileError | OSError):
                self._end(wanted, Ended.FAILED, wanted.did, (), str(found))
            else:
                raise found
        accounts = [
            (each.wanted.account, place)
            for each in ready
            if each.wanted.account is not None
            for place in self._places_of(each.wanted)
        ]
        await asyncio.to_thread(self._book.write, accounts, self._plan.uri)
        return ready

    def _made(self, wanted: Wanted) -> _Ready:
        if wanted.step is not Step.NEW:
            return _Ready(wanted, wanted.did, None, self._secrets(wanted))
        signed = wanted.signed
        if signed is None:
            home = self._site.folder / FOLDER / wanted.org
            operation, proof, _ = proven_operation(
                home, wanted.name, self._site.network, wanted.controller_did, wanted.key
            )
            signed = SignedCreate(operation, proof)
        return _Ready(wanted, signed.operation.did(), signed, self._secrets(wanted))

    async def _carry(self, group: Sequence[_Ready]) -> None:
        ends = await asyncio.gather(*(self._register(each) for each in group), return_exceptions=True)
        blocks = [0]
        standing = []
        for each, end in zip(group, ends, strict=True):
            match end:
                case None:
                    standing.append(each)
                case Done(block=block):
                    blocks.append(block)
                    standing.append(each)
                case Refused(code="did_exists"):
                    standing.append(each)
                case Refused() | IntentExpired() | CommissioningError():
                    self._end(each.wanted, Ended.FAILED, each.did, each.secrets, str(end))
                case _:
                    raise end
        if max(blocks):
            for gateway in self._site.gateways.values():
                await gateway.projections.reached(max(blocks))
        for each, wrong in zip(standing, await self._receive(standing), strict=True):
            self._end(each.wanted, Ended.FAILED if wrong else Ended.ONBOARDED, each.did, each.secrets, wrong)

    async def _register(self, each: _Ready) -> Done | None:
        if each.signed is None:
            return None
        gateway = self._site.gateways[each.wanted.org]
        desk = gateway.desk(each.wanted.controller_did)
        args = {"operation": each.signed.operation.model_dump(), "proof": each.signed.proof}
        intent_id = await self._intent_id(gateway, desk.did, operation_hash(each.signed.operation)[:40])
        while True:
            try:
                sent = await desk.send("identity.register_device", args, intent_id=intent_id, lifetime_ms=LIFETIME_MS)
                break
            except OutboxFull:  # others fill it: the relay makes room
                await asyncio.sleep(_FULL_S)
        return await desk.wait(sent)

    async def _intent_id(self, gateway: Gateway, did: str, digest: str) -> str:
        """That of the intent which is still under way, or the first one that was not used."""
        for attempt in range(_ATTEMPTS):
            intent_id = f"onboard-{digest}-{attempt}"
            known = await gateway.outbox.find(did, intent_id)
            if known is None or not known.state.terminal or known.state is State.COMMITTED:
                return intent_id
        raise CommissioningError(f"{_ATTEMPTS} intents for one device were refused or expired")

    async def _receive(self, group: Sequence[_Ready]) -> list[str]:
        """Enrol at all receivers here; what went wrong with each, empty when nothing did."""
        records = [_record(each) for each in group]
        wrong = [""] * len(group)
        for gateway in self._site.gateways.values():
            mine = [index for index, record in enumerate(records) if gateway.org in record.orgs and not wrong[index]]
            try:
                await gateway.devices.add(*(records[index] for index in mine))
            except ValueError:  # one of them; which, and the others all the same
                for index in mine:
                    try:
                        await gateway.devices.add(records[index])
                    except ValueError as error:
                        wrong[index] = f"{gateway.org}: {error}"
        return wrong

    def _end(self, wanted: Wanted, ended: Ended, did: str, secrets: tuple[Path, ...], reason: str = "") -> None:
        credentials = tuple(f"{protocol}:{credential}" for protocol, credential in wanted.credentials)
        paths = tuple(str(path) for path in secrets)
        self._ended[wanted.line] = DeviceReport(
            wanted.line, wanted.org, wanted.name, did, ended, reason, wanted.receivers, credentials, paths
        )
        self._failed += ended is Ended.FAILED
        self._progress(len(self._ended), self._failed, len(self._plan.wanted))

    def _places_of(self, wanted: Wanted) -> Iterator[Places]:
        return (self._places[org] for org in wanted.receivers if org in self._places)

    def _lacks_key(self, wanted: Wanted) -> bool:
        """A pre-shared key or account that was asked for later."""
        account = wanted.account
        if account is None:
            return False
        lacks_bootstrap = account.bootstrap and self._book.account(account.bootstrap) is None
        return bool(lacks_bootstrap or not self._book.key(account.identity))

    def _secrets(self, wanted: Wanted) -> tuple[Path, ...]:
        """Files that hold what was made for it, as far as they are (still) here."""
        home = self._site.folder / FOLDER / wanted.org
        own = (home / f"{wanted.name}.pem", home / f"{wanted.name}.next.pem") if wanted.signed is None else ()
        found = [path for path in own if path.exists()]
        if wanted.account is not None:
            for place in self._places_of(wanted):
                found += place.keys
                found += place.accounts if wanted.account.bootstrap else ()
        return tuple(dict.fromkeys(found))


def _record(each: _Ready) -> DeviceRecord:
    wanted = each.wanted
    return DeviceRecord(each.did, wanted.name, wanted.kind, wanted.credentials, wanted.receivers, wanted.unsigned)
