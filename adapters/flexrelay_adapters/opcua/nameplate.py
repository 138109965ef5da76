"""What a server says of a device: the nameplate of OPC UA for Devices (OPC 10000-100) at its object or above it; for
the only device of a server, else, the server's own BuildInfo (OPC 10000-5 §12.4)."""

from collections.abc import Mapping
from typing import Any, Final

from asyncua.ua.uatypes import NodeId

from flexrelay_adapters.opcua._stack import Connection, ua
from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.facts import NO_FACTS, cleaned

_NAMES: Final = {
    "Manufacturer": "manufacturer",
    "Model": "model",
    "SerialNumber": "serial",
    "SoftwareRevision": "firmware",
}
_GROUP: Final = "Identification"
"""The functional group in which some servers keep it."""
_LEVELS: Final = 3
"""How far above a variable its device's object is looked for."""
_ROOTS: Final = frozenset({ua.ObjectIds.ObjectsFolder, ua.ObjectIds.RootFolder, ua.ObjectIds.Server})


async def read_nameplate(connection: Connection, variable: str, *, alone: bool) -> DeviceFacts:
    """Of the device that `variable` (a node id of the configuration) belongs to; `alone`: the server is the device's.

    Raises ConnectionLost, ValueError when the variable is not there.
    """
    node: NodeId | None = connection.resolve(variable)
    for _ in range(_LEVELS):
        node = await _above(connection, node) if node is not None else None
        if node is None:
            break
        facts = await _at(connection, node)
        if facts != NO_FACTS:
            return facts
    return await _build_info(connection) if alone else NO_FACTS


async def _above(connection: Connection, node: NodeId) -> NodeId | None:
    """The object that it is part of; None at the top."""
    for reference in await connection.browse(node, inverse=True):
        above = _local(reference.NodeId)
        if reference.NodeClass == ua.NodeClass.Object and not (
            above.NamespaceIndex == 0 and above.Identifier in _ROOTS
        ):
            return above
    return None


async def _at(connection: Connection, node: NodeId) -> DeviceFacts:
    told: dict[str, str] = {}
    group: NodeId | None = None
    for reference in await connection.browse(node):
        name = reference.BrowseName.Name or ""
        if name in _NAMES and reference.NodeClass == ua.NodeClass.Variable:
            told[_NAMES[name]] = await _text(connection, _local(reference.NodeId))
        elif name == _GROUP and reference.NodeClass == ua.NodeClass.Object:
            group = _local(reference.NodeId)
    facts = _facts(told)
    return await _at(connection, group) if facts == NO_FACTS and group is not None and group != node else facts


async def _build_info(connection: Connection) -> DeviceFacts:
    ids = ua.ObjectIds
    places = {
        "manufacturer": ids.Server_ServerStatus_BuildInfo_ManufacturerName,
        "model": ids.Server_ServerStatus_BuildInfo_ProductName,
        "firmware": ids.Server_ServerStatus_BuildInfo_SoftwareVersion,
    }
    return _facts({name: await _text(connection, ua.NodeId(place)) for name, place in places.items()})


async def _text(connection: Connection, node: NodeId) -> str:
    try:
        value: Any = await connection.read(node)
    except ValueError:
        return ""
    text = getattr(value, "Text", value)  # of a LocalizedText
    return text if isinstance(text, str) else ""


def _facts(told: Mapping[str, str]) -> DeviceFacts:
    return cleaned(
        DeviceFacts(
            told.get("manufacturer", ""), told.get("model", ""), told.get("serial", ""), told.get("firmware", "")
        )
    )


def _local(node: Any) -> NodeId:
    """The node id of a reference's expanded one."""
    found: NodeId = ua.NodeId(node.Identifier, node.NamespaceIndex, node.NodeIdType)
    return found
