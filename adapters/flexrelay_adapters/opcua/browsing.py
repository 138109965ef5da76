"""Browse a server: objects with numeric variables, as candidates for devices.

What is found waits for somebody to approve it: it becomes a device when it stands in the configuration and is enrolled.
"""

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from asyncua.ua.uatypes import NodeId

from flexrelay_adapters.opcua._stack import Connection, ua

MOST_NODES: Final = 20_000
"""Looked at; a server that has more is browsed from a node further down."""
_DEPTH: Final = 12
_NUMBERS: Final = frozenset(range(2, 12)) | {26, 27, 28, 29, 50}
"""Built-in numeric types and the abstract ones above them."""


@dataclass(frozen=True, slots=True)
class Variable:
    """`unit` is the engineering unit's display name, "" when the server gives none."""

    node: str
    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class Found:
    """An object that has numeric variables; `path` are the browse names from the Objects folder on."""

    path: str
    node: str
    variables: tuple[Variable, ...]


async def find_devices(connection: Connection, start: str = "i=85", depth: int = _DEPTH) -> AsyncIterator[Found]:
    """Breadth first from a node (the Objects folder unless told otherwise); the server's own objects are left out.

    Raises ConnectionLost, ValueError for a start that is not there.
    """
    root = connection.resolve(start)
    seen = {root}
    queue: deque[tuple[NodeId, str, int]] = deque([(root, "", 0)])
    looked_at = 0
    while queue:
        node, path, level = queue.popleft()
        variables = []
        for reference in await connection.browse(node):
            looked_at += 1
            if looked_at > MOST_NODES:
                return
            target = ua.NodeId(
                reference.NodeId.Identifier, reference.NodeId.NamespaceIndex, reference.NodeId.NodeIdType
            )
            if target in seen or target == ua.NodeId(ua.ObjectIds.Server):
                continue
            seen.add(target)
            name = reference.BrowseName.Name or "?"
            if reference.NodeClass == ua.NodeClass.Variable:
                variable = await _variable(connection, target, name)
                if variable is not None:
                    variables.append(variable)
            elif level < depth:
                queue.append((target, f"{path}/{name}" if path else name, level + 1))
        if variables:
            yield Found(path or start, connection.text_of(node), tuple(variables))


async def _variable(connection: Connection, node: NodeId, name: str) -> Variable | None:
    try:
        kind = await connection.read(node, ua.AttributeIds.DataType)
        if kind.NamespaceIndex or kind.Identifier not in _NUMBERS:
            return None
        unit = ""
        for reference in await connection.browse(node):
            if reference.BrowseName.Name == "EngineeringUnits":
                target = ua.NodeId(
                    reference.NodeId.Identifier, reference.NodeId.NamespaceIndex, reference.NodeId.NodeIdType
                )
                given = await connection.read(target)
                unit = getattr(getattr(given, "DisplayName", None), "Text", "") or ""
    except ValueError:
        return None
    return Variable(connection.text_of(node), name, unit)
