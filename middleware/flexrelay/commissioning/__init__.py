"""Setting up and changing who and what takes part: networks, actors, devices. For the CLI, an API and the demo alike.

Every function takes an open site (`Level.ACTING` is enough), acts by signed intents through the organisations' own
gateways, and can be asked for again after an interruption: what is there already stays as it is.
"""

from flexrelay.commissioning.actors import Actor, add_actor, give_role, list_actors, revoke_role, rotate_key
from flexrelay.commissioning.devices import (
    Device,
    NewDevice,
    declare_exchange,
    enrol_device,
    list_devices,
    receive_device,
    register_device,
    revoke_device,
)
from flexrelay.commissioning.errors import CommissioningError
from flexrelay.commissioning.network import NetworkPlan, found_network, publish
from flexrelay.commissioning.operator import operator_desk, operator_of

__all__ = [
    "Actor",
    "CommissioningError",
    "Device",
    "NetworkPlan",
    "NewDevice",
    "add_actor",
    "declare_exchange",
    "enrol_device",
    "found_network",
    "give_role",
    "list_actors",
    "list_devices",
    "operator_desk",
    "operator_of",
    "publish",
    "receive_device",
    "register_device",
    "revoke_device",
    "revoke_role",
    "rotate_key",
]
