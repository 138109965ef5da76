"""An LwM2M client: the device's side, for simulation and tests. It uses the same message layer as the server."""

from flexrelay_adapters.lwm2m.device.client import DeviceClient, NotRegistered
from flexrelay_adapters.lwm2m.device.link import Security
from flexrelay_adapters.lwm2m.device.tree import Tree

__all__ = ["DeviceClient", "NotRegistered", "Security", "Tree"]
