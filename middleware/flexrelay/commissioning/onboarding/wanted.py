"""A row that was understood: which device is wanted, and how far it is."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from flexrelay.commissioning.claims import SignedCreate
from flexrelay.commissioning.onboarding.presharedkeys import Account
from flexrelay.commissioning.onboarding.problem import Problem
from flexrelay.commissioning.onboarding.report import write_report

_COLUMNS: Final = ("line", "org", "name", "step", "makes", "column", "message")


class Step(Enum):
    """What an onboarding has to do for a device."""

    NEW = "new"
    """Not on the ledger."""
    COMPLETE = "complete"
    """On the ledger; a receiver's enrolment is missing."""
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`controller` is the actor's label, `controller_did` its DID. `key` is the device's own private key, `signed` its
    create operation where the device signed it itself. `did` is empty while the keys are still to be made."""

    line: int
    org: str
    name: str
    kind: str
    controller: str
    controller_did: str
    receivers: tuple[str, ...]
    unsigned: bool
    credentials: tuple[tuple[str, str], ...]
    key: Path | None
    signed: SignedCreate | None
    account: Account | None
    did: str
    step: Step

    def to_json(self) -> dict[str, Any]:
        """For people and scripts; no secret in it."""
        return {
            "line": self.line,
            "org": self.org,
            "name": self.name,
            "kind": self.kind,
            "controller": self.controller,
            "receivers": list(self.receivers),
            "credentials": [f"{protocol}:{credential}" for protocol, credential in self.credentials],
            "unsigned": self.unsigned,
            "did": self.did,
            "step": self.step.value,
            "makes": self.makes(),
        }

    def makes(self) -> list[str]:
        """Which secrets are made for it."""
        made = ["keys"] if self.step is Step.NEW and self.signed is None and self.key is None else []
        if self.step is Step.NEW and self.signed is None and self.key is not None:
            made.append("next key")
        if self.account is not None and not self.account.key:
            made.append("psk")
        if self.account is not None and self.account.bootstrap and not self.account.bootstrap_key:
            made.append("bootstrap psk")
        return made


@dataclass(frozen=True, slots=True)
class OnboardingPlan:
    """All rows; nothing is done while there are problems. `notes` are what somebody should know and that stops
    nothing. `uri` is where bootstrapped LwM2M devices register."""

    wanted: tuple[Wanted, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()
    uri: str = ""

    def count(self, step: Step) -> int:
        return sum(wanted.step is step for wanted in self.wanted)

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": len(self.wanted),
            **{step.value: self.count(step) for step in Step},
            "problems": [problem.to_json() for problem in self.problems],
            "notes": list(self.notes),
            "devices": [wanted.to_json() for wanted in self.wanted],
        }

    def write(self, path: Path) -> None:
        """What would be done and every problem, by line. See `write_report`."""
        entries: list[Wanted | Problem] = [*self.wanted, *self.problems]
        rows = (entry.to_json() for entry in sorted(entries, key=lambda entry: entry.line))
        write_report(path, self.to_json(), _COLUMNS, rows)
