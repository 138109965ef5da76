"""What happens when a part of a running site fails for good: the site ends and says why, and it can be opened again."""

import asyncio
from pathlib import Path

import pytest
from support.site import operator_desk, register_device, site

from flexrelay.app import _Days
from flexrelay.projections import Projections
from flexrelay.windows import Anchoring


@pytest.mark.parametrize("part", [Anchoring, _Days])
async def test_the_failure_of_a_background_task_ends_the_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: type
) -> None:
    failing = asyncio.Event()

    async def broken(self: object) -> None:
        await failing.wait()
        raise RuntimeError("this part is broken")

    with monkeypatch.context() as patched:
        patched.setattr(part, "run", broken)
        with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="this part is broken"), flatten_subgroups=True):
            async with site(tmp_path, ("dso", "agg-a")):
                failing.set()
                await asyncio.wait_for(asyncio.Event().wait(), 60)
    async with site(tmp_path, ("dso", "agg-a")) as opened:
        await register_device(opened.gateways["dso"], operator_desk(opened.gateways["dso"]), "m1")


async def test_an_event_that_cannot_be_projected_ends_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(tmp_path):
        pass

    def broken(self: object, *_: object) -> None:
        raise ValueError("no such field")

    with monkeypatch.context() as patched:
        patched.setattr(Projections, "_store_block", broken)
        with pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="no such field"), flatten_subgroups=True):
            async with site(tmp_path) as opened:
                desk = operator_desk(opened.gateways["dso"])
                await asyncio.wait_for(register_device(opened.gateways["dso"], desk, "m1"), 60)
    async with site(tmp_path) as opened:
        await register_device(opened.gateways["dso"], operator_desk(opened.gateways["dso"]), "m2")


async def test_readiness_tells_what_the_ledger_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(tmp_path) as opened:
        good = {"ledger": True, "dso journal": True, "dso relay": True}
        assert {check.name: check.good for check in opened.checks()} == good
        monkeypatch.setattr(opened.gateways["dso"].ingest, "trouble", "the disk is full")
        (check,) = (check for check in opened.checks() if not check.good)
        assert (check.name, check.detail) == ("dso journal", "the disk is full")
        monkeypatch.setattr(opened.gateways["dso"].ingest, "trouble", "")
        monkeypatch.setattr(opened.ledger._ledger, "_lag", "no space for the next block")
        (check,) = (check for check in opened.checks() if check.name == "ledger")
        assert not check.good and "no space" in check.detail
