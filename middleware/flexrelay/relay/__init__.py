"""Carries the outbox to the ledger: at least once on the wire, exactly one end per intent."""

from flexrelay.relay.journey import Pace, SignIntent
from flexrelay.relay.relay import Relay, RelayOptions

__all__ = ["Pace", "Relay", "RelayOptions", "SignIntent"]
