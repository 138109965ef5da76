"""What somebody has to look at is told: once in the log, as an alarm while it lasts, in the entry's history."""

import asyncio
import logging
from pathlib import Path

import pytest
from support.hostile_ledger import HostileLedger
from unit.relay.test_relay import ended, running

from flexrelay.ledger.fabric import AccessDenied, EndorsedResult, EndorsementMismatch
from flexrelay.ledger.port import Call, NeedsAttention, Prepared
from flexrelay.outbox import CommittedIntent, ExpiredIntent
from flexrelay.relay import Alarms

MISMATCH = EndorsementMismatch(
    "the organisations' peers disagree: dso: result 1; agga: result 2",
    {"dso": EndorsedResult("1", "aa"), "agga": EndorsedResult("2", "bb")},
)


class Disagreeing(HostileLedger):
    """Its peers disagree until `good`."""

    good = False

    async def prepare(self, call: Call) -> Prepared:
        if not self.good:
            raise MISMATCH
        return await super().prepare(call)


class Clock:
    """Seconds that a test sets."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_trouble_stands_when_it_has_lasted_and_is_told_again_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    alarms = Alarms(again_s=60, now=clock)
    with caplog.at_level(logging.WARNING):
        assert alarms.met(1, "i-1", MISMATCH)
        assert alarms.standing == []
        clock.seconds = 2.0
        assert not alarms.met(1, "i-1", MISMATCH)
        assert alarms.standing == []
        for clock.seconds in (3.0, 10.0, 50.0):
            assert not alarms.met(1, "i-1", MISMATCH)
        (alarm,) = alarms.standing
        assert (alarm.intent_id, alarm.kind, alarm.seconds) == ("i-1", "endorsement_mismatch", 50.0)
        assert "dso: result 1" in alarm.message and "agga: result 2" in alarm.message
        assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"]
        clock.seconds = 64.0
        alarms.met(1, "i-1", MISMATCH)
        assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR", "ERROR"]
    assert alarms.counts == {"endorsement_mismatch": 6}
    alarms.over(1)
    assert alarms.standing == []


def test_another_kind_begins_anew() -> None:
    clock = Clock()
    alarms = Alarms(now=clock)
    alarms.met(1, "i-1", MISMATCH)
    clock.seconds = 5.0
    assert alarms.met(1, "i-1", AccessDenied("the certificate has expired"))
    assert alarms.standing == []
    clock.seconds = 8.0
    assert [alarm.kind for alarm in alarms.standing] == ["access_denied"]


def test_peers_that_are_a_block_apart_are_given_more_time() -> None:
    clock = Clock()
    alarms = Alarms(now=clock)
    alarms.met(1, "i-1", EndorsementMismatch("behind", {}, behind=True))
    clock.seconds = 29.0
    assert alarms.standing == []
    clock.seconds = 31.0
    assert len(alarms.standing) == 1


async def test_an_entry_that_the_peers_disagree_on_is_alarmed_and_goes_on_when_they_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NeedsAttention, "patience_s", 0.05)
    ledger = Disagreeing()
    async with running(tmp_path, ledger) as gateway:
        entry = await gateway.outbox.add(gateway.intent("disputed"))
        async with asyncio.timeout(60):
            alarms = gateway.relay.alarms
            while not alarms.standing or alarms.counts["endorsement_mismatch"] < 2:  # noqa: ASYNC110 (they tell nobody)
                await asyncio.sleep(0.01)
        (alarm,) = gateway.relay.alarms.standing
        assert alarm.intent_id == "disputed"
        told = [step.detail for step in await gateway.outbox.transitions(entry) if step.detail]
        assert len(told) == 1 and told[0].startswith("endorsement_mismatch: ") and "agga: result 2" in told[0]
        ledger.good = True
        assert isinstance(await ended(gateway, entry), CommittedIntent)
        assert gateway.relay.alarms.standing == []
        assert gateway.relay.alarms.counts["endorsement_mismatch"] > 1


async def test_an_entry_that_the_peers_never_agree_on_expires(tmp_path: Path) -> None:
    ledger = Disagreeing()
    async with running(tmp_path, ledger) as gateway:
        entry = await gateway.outbox.add(gateway.intent("disputed", life_ms=100))
        await asyncio.sleep(0.1)
        ledger.now += 200
        assert isinstance(await ended(gateway, entry), ExpiredIntent)
        assert gateway.relay.alarms.standing == []
