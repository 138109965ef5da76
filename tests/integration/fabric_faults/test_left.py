"""A network of tests does not outlive the process that asked for it, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from integration.fabric_faults.rig import PATIENCE_S

from flexrelay.network import Network

CODE = """
import sys, time
from pathlib import Path
from support.fabric import describe, native
with native(Path(sys.argv[1]), describe(("dso",))):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.mark.timeout(1800)
def test_a_killed_test_leaves_nothing_running(tmp_path: Path) -> None:
    folder = tmp_path / "network"
    environment = {**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", CODE, str(folder)], stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        network = Network.opened(folder)
        assert len(network.processes.running()) == 3
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + PATIENCE_S
    while network.processes.running():
        assert time.monotonic() < deadline, network.processes.running()
        time.sleep(0.2)
