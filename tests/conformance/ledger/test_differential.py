"""The embedded ledger and Fabric, driven with the same random histories: same answers, refusals, judgements, events and
state, down to hashes of private values and policies of keys; and Fabric's chain recomputes.

FLEXRELAY_SEED repeats a run's choices (keys and ids are new each time), FLEXRELAY_TEST_FABRIC chooses the version,
FLEXRELAY_HISTORIES how long the soak is. What a run was made of is printed.
"""

import os
import random
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.chance import told_seed
from support.fabric import native
from support.histories import congestion, core, equivocation, local_energy
from support.network import Network
from support.two_ledgers import Grounds, Tally, description

from flexrelay.network.processes import Processes, Program
from flexrelay_contracts.catalogue import TRANSACTIONS

Story = Callable[[random.Random], None]


def _core(chance: random.Random) -> None:
    core(Network.start(), chance, 3)


def _congestion(chance: random.Random) -> None:
    congestion(Network.start(), chance)


STORIES: tuple[Story, ...] = (_congestion, equivocation, local_energy, _core)


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[Story], int], Tally]:
    """play(stories, rounds): the stories, each on a fresh pair of ledgers that is compared when it ends."""
    plain = Processes.start

    def at_any_time(self: Processes, program: Program) -> None:
        """A peer takes only proposals whose time is within 15 minutes of its own, and these histories last for days."""
        environment = {**program.environment, "CORE_PEER_AUTHENTICATION_TIMEWINDOW": "876000h"}
        plain(self, replace(program, environment=environment))

    monkeypatch.setattr(Processes, "start", at_any_time)
    tally, chance = Tally(), random.Random(told_seed())

    def tell(story: Story, grounds: Grounds) -> None:
        with ExitStack() as stack:

            def start(cls: Any, *args: Any, **options: Any) -> Any:
                assert not args and not options
                return stack.enter_context(grounds.network())

            monkeypatch.setattr(Network, "start", classmethod(start))
            story(chance)

    def run(stories: Sequence[Story], rounds: int) -> Tally:
        names = [f"story{number}" for number in range(len(stories))]
        for number in range(rounds):
            folder = tmp_path / str(number)
            with native(folder / "network", description(names)) as network:
                grounds = Grounds(network, folder / "ledgers", chance, tally)
                for story in stories:
                    tell(story, grounds)
            shutil.rmtree(folder)
        return tally

    return run


def _complete(tally: Tally) -> None:
    print(tally.told())
    missing = set(TRANSACTIONS) - set(+tally.committed)
    assert not missing, sorted(missing)
    for code in ("MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT", "DUPLICATE_TXID"):
        assert tally.validations[code], f"no {code} among {tally.validations}"
    assert tally.private and tally.private_hashes and len(tally.refusals) > 5


@pytest.mark.timeout(1800)
def test_the_same_history_gives_the_same_on_both_ledgers(play: Callable[[Sequence[Story], int], Tally]) -> None:
    _complete(play(STORIES[:3], 1))


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_many_histories_give_the_same_on_both_ledgers(play: Callable[[Sequence[Story], int], Tally]) -> None:
    _complete(play(STORIES, int(os.environ.get("FLEXRELAY_HISTORIES", "8"))))
