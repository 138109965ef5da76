"""Verifying a Fabric channel: everything that its blocks prove or that can be computed again from them."""

from flexrelay.ledger.fabric.verify.recompute import Replay, replayed, verify
from flexrelay.ledger.fabric.verify.report import Problem, Report

__all__ = ["Problem", "Replay", "Report", "replayed", "verify"]
