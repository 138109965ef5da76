"""The contract: subclass it, give it a rig, and pytest runs what every adapter must do.

    class TestAcme(AdapterContract):
        def rig(self, tmp_path): return AcmeRig.open(tmp_path)     # an async context manager
        without = {Promise.COMMANDS: "Acme's meters cannot be commanded"}

The tests are plain functions that run their own event loop: nothing but pytest is needed. What a protocol cannot
promise is left out with a reason; the quality scale counts what is promised.

An adapter with an optional ability keeps its contract too:

    class TestAcme(AdapterContract, DiscoveryContract, BackfillContract, TimeContract, FactContract): ...
"""

from flexrelay_sdk.testkit._backfill import BackfillContract
from flexrelay_sdk.testkit._base import keeps
from flexrelay_sdk.testkit._commands import CommandTests, Life
from flexrelay_sdk.testkit._discovery import DiscoveryContract
from flexrelay_sdk.testkit._facts import FactContract
from flexrelay_sdk.testkit._lifecycle import LifecycleTests
from flexrelay_sdk.testkit._readings import ReadingTests
from flexrelay_sdk.testkit._time import TimeContract

__all__ = ["AdapterContract", "BackfillContract", "DiscoveryContract", "FactContract", "Life", "TimeContract", "keeps"]


class AdapterContract(LifecycleTests, ReadingTests, CommandTests):
    """See the module's text. `without` leaves promises out; `is_server`, `ordered`, `patience_s` and `settle_s` say how
    the protocol is."""
