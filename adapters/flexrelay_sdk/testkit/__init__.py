"""The test kit of adapters: contract tests to subclass, a recording sink, rigs, captured frames. Needs pytest.

`AdapterContract` is what an adapter must pass, against a `Rig`, its real counterpart; `CodecContract` what its codec
must, on captured frames; `DiscoveryContract`, `BackfillContract`, `TimeContract` and `FactContract` are those of the
optional abilities. `flexrelay_sdk.testkit.plugin` is the pytest plugin.
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "_backfill",
            "_commands",
            "_discovery",
            "_facts",
            "_lifecycle",
            "_readings",
            "_time",
            "codecs",
            "frames",
        )
    )
)

from flexrelay_sdk.simulation import DeviceSimulator  # noqa: E402
from flexrelay_sdk.testkit.codecs import CodecContract, fuzz  # noqa: E402
from flexrelay_sdk.testkit.contract import (  # noqa: E402  # after the registration
    AdapterContract,
    BackfillContract,
    DiscoveryContract,
    FactContract,
    Life,
    TimeContract,
    keeps,
)
from flexrelay_sdk.testkit.frames import FrameCase, load_frames  # noqa: E402
from flexrelay_sdk.testkit.promise import Promise  # noqa: E402
from flexrelay_sdk.testkit.rig import Act, Behaviour, Rig  # noqa: E402
from flexrelay_sdk.testkit.running import running  # noqa: E402
from flexrelay_sdk.testkit.sink import RecordingSink, SinkCrash, Stored, until  # noqa: E402

__all__ = [
    "Act",
    "AdapterContract",
    "BackfillContract",
    "Behaviour",
    "CodecContract",
    "DeviceSimulator",
    "DiscoveryContract",
    "FactContract",
    "FrameCase",
    "Life",
    "Promise",
    "RecordingSink",
    "Rig",
    "SinkCrash",
    "Stored",
    "TimeContract",
    "fuzz",
    "keeps",
    "load_frames",
    "running",
    "until",
]
