"""In CI a test that does not run is a failure: the whole of what the README promises is tested there."""

import os

import pytest
from hypothesis import HealthCheck, settings
from support.watcher import watched

# Machines are noisy: a slow example is no failure. Nor is what chance alone has made too much of.
CHANCE = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
settings.register_profile("flexrelay", deadline=None, suppress_health_check=CHANCE)
settings.load_profile("flexrelay")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    watched()
    if os.environ.get("FLEXRELAY_SOAK"):
        config.option.reportchars += "P"  # a soak's report says what ran, with counts and seeds


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if os.environ.get("CI") and skipped:
        terminalreporter.section("skipped in CI")
        for report in skipped:
            terminalreporter.write_line(f"{report.nodeid}: {report.longrepr}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and exitstatus == 0 and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
