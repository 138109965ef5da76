"""Uplinks into measurements: the network server's envelope, the port, the payload, the mapping."""

from collections.abc import Mapping, Sequence
from typing import Any

from flexrelay_adapters.lorawan.config import PortMapping
from flexrelay_adapters.lorawan.servers import Server
from flexrelay_sdk import Decoded, DecodeError, Frame
from flexrelay_sdk.mapping import Mapper, parse_json, parse_path


class LorawanCodec:
    """`Codec` for the uplinks of one network server that carry something."""

    def __init__(self, server: Server, ports: Sequence[PortMapping]) -> None:
        self._server = server
        self._ports = {port: _Port(mapping) for mapping in ports for port in mapping.f_ports}

    def decode(self, frame: Frame) -> Decoded:
        """Raises DecodeError: not_an_uplink, not_base64, wrong_sender, unknown_port, no_payload and those of the
        binary layout and the mapping."""
        uplink = self._server.uplink(parse_json(frame.payload))
        if uplink.device != frame.credential:
            raise DecodeError("wrong_sender", f"it came for {frame.credential[:80]!r}, it is of another device")
        port = self._ports.get(uplink.f_port)
        if port is None:
            raise DecodeError("unknown_port", f"nothing says what port {uplink.f_port} means", "fPort")
        document = port.document(uplink.data, uplink.decoded)
        measurement = port.mapper.measurement(document, uplink.received_at)
        return Decoded((measurement._replace(seq=uplink.f_cnt) if port.counts else measurement,))


class _Port:
    def __init__(self, mapping: PortMapping) -> None:
        self.mapper = Mapper(mapping)
        self.counts = mapping.counter_is_seq
        self._layout = mapping.binary
        fields = mapping.fields
        self._zeros = [parse_path(fields[register].pointer) for register in mapping.absent_is_zero]

    def document(self, data: bytes, decoded: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """What is mapped. Raises DecodeError."""
        if self._layout is not None:
            if not data:
                raise DecodeError("no_payload", "the uplink carries no data")
            return self._layout.read(data)
        if decoded is None and not (self._zeros and data):
            raise DecodeError("no_payload", "the network server has not decoded it: give it a decoder, or `binary`")
        document: dict[str, Any] = dict(decoded or {})
        for steps in self._zeros:
            _fill(document, steps)
        return document


def _fill(document: dict[str, Any], steps: Sequence[Any]) -> None:
    """0 where nothing stands. Copies what it changes."""
    for step in steps[:-1]:
        inner = document.get(step) if type(step) is str else None
        if inner is not None and type(inner) is not dict:
            return
        copied: dict[str, Any] = dict(inner or {})
        document[str(step)] = copied
        document = copied
    if steps and type(steps[-1]) is str:
        document.setdefault(steps[-1], 0)
