"""A private value is planted and everything is done with it that goes wrong: it is in no error, log, event or block."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
from pathlib import Path

import pytest
from integration.fabric_edges.consortium import Consortium, asked, metrics, working, written
from support.chain import wall_ms

from flexrelay.ledger.fabric import FabricLedger, deliver
from flexrelay.ledger.port import Call, Checkpoint, LedgerError
from flexrelay_contracts.refusal import Refused

pytestmark = pytest.mark.timeout(1200)

MEMBERS = ("agga", "dso")


class Planted:
    """A value, and the ways in which it could be written down."""

    def __init__(self) -> None:
        self.text = f"planted-{secrets.token_hex(24)}"
        self.value = self.text.encode()
        encoded = [base64.b64encode(b"\0" * shift + self.value) for shift in range(3)]
        inside = [text[4 : (len(text) // 4 - 1) * 4] for text in encoded]  # the same wherever it stands in the base64
        self.forms = [self.value, self.value.hex().encode(), *inside]
        self.forms += [form.replace(b"+", b"-").replace(b"/", b"_") for form in inside]

    def in_bytes(self, data: bytes) -> bool:
        return any(form in data for form in self.forms)


def told_in(planted: Planted, folder: Path) -> list[str]:
    """The logs that tell the value."""
    return [path.name for path in sorted(folder.iterdir()) if planted.in_bytes(path.read_bytes())]


async def everything_that_fails(consortium: Consortium, ledger: FabricLedger, planted: Planted) -> list[str]:
    """The texts of all failures."""
    said = []
    owner, transient = consortium.owner, {"value": planted.value}
    past = ledger.with_clock(lambda: wall_ms() - 3_600_000)
    tries = [
        *((ledger, f"secret.{name}", MEMBERS) for name in ("fail", "misread", "misdecode", "refuse")),
        (past, "secret.keep", MEMBERS),
        (ledger, "secret.nothing", MEMBERS),
        (ledger, "secret.keep", ("agga", "nobody")),
    ]
    for through, function, orgs in tries:
        call = Call(consortium.intent(owner, function, name="n"), transient, orgs)
        with pytest.raises((LedgerError, Refused)) as caught:
            await through.prepare(call)
        said += [str(caught.value), repr(caught.value), repr(vars(caught.value))]
    return said


async def test_a_private_value_is_never_told(consortium: Consortium, caplog: pytest.LogCaptureFixture) -> None:
    planted, name = Planted(), f"k-{secrets.token_hex(4)}"
    caplog.set_level(logging.DEBUG)
    debugging = consortium.replaced("agga", lambda text: 'log_level = "DEBUG"\n' + text)
    async with consortium.connect("dso") as dso, consortium.connect("aggb") as aggb:
        start = await dso.height()
        with debugging as debug_log:
            async with consortium.connect_patiently("agga") as agga:
                await working(agga)
                said = await everything_that_fails(consortium, agga, planted)
                keep = consortium.intent(consortium.owner, "secret.keep", name=name)
                committed = await written(agga, keep, {"value": planted.value}, MEMBERS)
                for peer in aggb._pool.others():
                    with pytest.raises((LedgerError, Refused)) as denied:
                        await asked(aggb, "secret.kept", {"name": name}, peer)
                    said.append(str(denied.value))
                assert await agga.evaluate("secret.kept", {"name": name}) == planted.text, "it was never there"
                events = [item async for item in _events(agga, Checkpoint(start - 1), committed.tx_id)]
                view = await agga.block(committed.block)
            assert "keep" in debug_log.read_text(), "the process did not log its calls"
        blocks = [
            await deliver.one_block(peer, dso._identity, "market", number, wall_ms())
            for peer in dso._pool.order()[:1]
            for number in range(start, committed.block + 1)
        ]
    assert [event.payload for item in events for event in item.events if event.name == "secret.kept"] == [name.encode()]
    told = {
        "errors": [text for text in said if planted.in_bytes(text.encode())],
        "events": [item for item in events for event in item.events if planted.in_bytes(event.payload)],
        "blocks": [block.header.number for block in blocks if planted.in_bytes(block.SerializeToString())],
        "views": [view] if planted.in_bytes(repr(view).encode()) else [],
        "the gateway's log": [record for record in caplog.messages if planted.in_bytes(record.encode())],
        "processes' logs": told_in(planted, consortium.native.folder.logs),
    }
    assert told == {where: [] for where in told}
    await consortium.answers("agga")


async def test_without_a_hint_private_values_go_to_members_only(consortium: Consortium) -> None:
    """Who endorses is planned by the collection: aggb's chaincode is never called with the values."""
    async with consortium.connect("agga") as agga:
        before = calls_at(consortium, "aggb")
        for _ in range(5):
            name = f"k-{secrets.token_hex(4)}"
            intent = consortium.intent(consortium.owner, "secret.keep", name=name)
            await written(agga, intent, {"value": Planted().value})
        assert calls_at(consortium, "aggb") == before


async def test_a_named_endorser_that_is_no_member_never_gets_private_values(consortium: Consortium) -> None:
    """Refused before anything is sent to it, whether the contract would use its collection or no collection at all."""
    planted = Planted()
    async with consortium.connect("agga") as agga:
        await working(agga)
        before = calls_at(consortium, "aggb")
        for function, args in (("secret.keep", {"name": f"k-{secrets.token_hex(4)}"}), ("slow.wait", {"ms": 0})):
            for orgs in (("agga", "aggb"), ("agga", "dso", "aggb"), ("aggb",)):
                call = Call(consortium.intent(consortium.owner, function, **args), {"value": planted.value}, orgs)
                with pytest.raises(Refused, match="aggb") as caught:
                    await agga.prepare(call)
                assert (caught.value.code, caught.value.field) == ("private_not_member", "endorsing_orgs")
                assert not planted.in_bytes(str(caught.value).encode())
        assert calls_at(consortium, "aggb") == before
        for function, args in (("secret.keep", {"name": f"k-{secrets.token_hex(4)}"}), ("slow.wait", {"ms": 0})):
            intent = consortium.intent(consortium.owner, function, **args)
            await written(agga, intent, {"value": planted.value}, MEMBERS)


def calls_at(consortium: Consortium, org: str) -> str:
    """How many calls the organisation's chaincode has ended."""
    return metrics(consortium, org)["flexrelay_chaincode_call_seconds_count"]


async def _events(ledger: FabricLedger, since: Checkpoint, until: str):
    async with asyncio.timeout(150):
        async for item in ledger.events(since):
            yield item
            if item.tx_id == until:
                return


def test_the_search_finds_what_is_there() -> None:
    planted = Planted()
    for shift in range(4):
        prefix = b"x" * shift
        assert planted.in_bytes(b"..." + base64.b64encode(prefix + planted.value + b"yz") + b"...")
    assert planted.in_bytes(repr(planted.text).encode())
    assert not planted.in_bytes(b"planted-" * 20)
