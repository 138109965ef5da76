"""The test kit of adapters: contract tests to subclass, a recording sink, rigs, captured frames. Needs pytest.

`AdapterContract` is what an adapter must pass; a `Rig` is the real counterpart that it is tested against.
"""

import pytest

pytest.register_assert_rewrite("flexrelay_sdk.testkit.contract", "flexrelay_sdk.testkit.frames")

from flexrelay_sdk.testkit.contract import AdapterContract, Life, keeps  # noqa: E402  # after the registration
from flexrelay_sdk.testkit.promise import Promise  # noqa: E402
from flexrelay_sdk.testkit.rig import Act, Behaviour, Rig  # noqa: E402
from flexrelay_sdk.testkit.running import running  # noqa: E402
from flexrelay_sdk.testkit.sink import RecordingSink, SinkCrash, Stored, until  # noqa: E402

__all__ = [
    "Act",
    "AdapterContract",
    "Behaviour",
    "Life",
    "Promise",
    "RecordingSink",
    "Rig",
    "SinkCrash",
    "Stored",
    "keeps",
    "running",
    "until",
]
