"""The command line: `flexrelay …`. Every command takes `--json`; exit codes are in `flexrelay.cli.output`."""

from flexrelay.cli.main import main

__all__ = ["main"]
