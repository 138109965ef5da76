"""Carries the outbox to the ledger: at least once on the wire, exactly one end per intent."""

from flexrelay.relay.alarms import Alarm, Alarms
from flexrelay.relay.journey import Pace, SignIntent
from flexrelay.relay.relay import Relay, RelayOptions

__all__ = ["Alarm", "Alarms", "Pace", "Relay", "RelayOptions", "SignIntent"]
