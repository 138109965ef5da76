"""Awarded orders become commands with expiry, and their telemetry the proof of delivery, under one id."""

from flexrelay.dispatch.delivery import Delivery
from flexrelay.dispatch.dispatcher import Dispatcher
from flexrelay.dispatch.plan import DispatchOrder, NoCapacity, OrderedIsp, Plan, Planned, ProportionalPlan
from flexrelay.dispatch.records import CommandRecord, CommandStep, Confirmation, Reading
from flexrelay.dispatch.schema import DISPATCH

__all__ = [
    "DISPATCH",
    "CommandRecord",
    "CommandStep",
    "Confirmation",
    "Delivery",
    "DispatchOrder",
    "Dispatcher",
    "NoCapacity",
    "OrderedIsp",
    "Plan",
    "Planned",
    "ProportionalPlan",
    "Reading",
]
