"""What the two network servers write: uplinks, downlinks, and what becomes of a downlink.

ChirpStack v4: JSON of its integration.proto, which leaves out zeros, "" and false. The Things Stack v3: its
application-server messages, which leave them out too.
"""

import base64
import binascii
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol

from flexrelay_adapters.lorawan.nameplate import chirpstack_facts, things_stack_facts
from flexrelay_adapters.mqtt.commands import CommandResult
from flexrelay_adapters.mqtt.topics import TopicPattern
from flexrelay_sdk import Command, DecodeError, DeviceFacts
from flexrelay_sdk.mapping import instant_ms, parse_json

_NAMESPACE: Final = uuid.UUID("6b0f9d0e-5f0d-5c5e-8a53-3b1f5a0c6c11")
_KNOWN: Final = 10_000
"""More than a gateway has under way: the answer to each must be known."""


class Uplink(NamedTuple):
    """`device` is the name under which the network server has authenticated it; `received_at` UTC ms; `decoded` what
    the network server's own decoder made, None when it has none."""

    device: str
    f_port: int
    f_cnt: int
    received_at: int
    data: bytes
    decoded: Mapping[str, Any] | None

    @property
    def empty(self) -> bool:
        """Whether it carries nothing for the application: MAC commands (port 0, or none at all), an acknowledgement
        alone, or no payload. It is no reading then, and no fault either."""
        return self.f_port == 0 or not (self.data or self.decoded)


class Answer(NamedTuple):
    """What became of a downlink; `state` "" when that is not its end."""

    key: str
    state: str
    detail: str


class Server(Protocol):
    """A network server's way of writing."""

    readings: str
    commands: str
    answers: tuple[str, ...]
    """Topics with {application} and {device}."""
    status: str
    """The topic of what a device answers to the network server about itself; "" where its uplinks tell that too."""

    def uplink(self, document: Any) -> Uplink:
        """Raises DecodeError."""
        ...

    def about(self, event: str, document: Any) -> tuple[str, DeviceFacts]:
        """Device, and what an uplink (`event` "up") or a status says of it. Raises DecodeError."""
        ...

    def downlink(self, command: Command, f_port: int, confirmed: bool, data: bytes) -> bytes: ...

    def answer(self, event: str, document: Any) -> Answer | None:
        """`event` is the topic's last level."""
        ...


def key_of(command_id: str) -> str:
    """The downlink's own id: the same for the same command, also after a restart."""
    return str(uuid.uuid5(_NAMESPACE, command_id))


class ChirpStack:
    """v4."""

    readings = "application/{application}/device/{device}/event/up"
    commands = "application/{application}/device/{device}/command/down"
    answers: tuple[str, ...] = (
        "application/{application}/device/{device}/event/ack",
        "application/{application}/device/{device}/event/txack",
        "application/{application}/device/{device}/event/log",
    )
    status = "application/{application}/device/{device}/event/status"

    def uplink(self, document: Any) -> Uplink:
        whole = _object(document, "")
        info = _object(whole.get("deviceInfo"), "deviceInfo")
        return Uplink(
            _text(info, "devEui", "deviceInfo/devEui").lower(),
            _count(whole, "fPort", "fPort"),
            _count(whole, "fCnt", "fCnt"),
            instant_ms(whole.get("time"), "iso8601", "time"),
            _bytes(whole.get("data", ""), "data"),
            _decoded(whole.get("object"), "object"),
        )

    def about(self, event: str, document: Any) -> tuple[str, DeviceFacts]:
        whole = _object(document, "")
        info = _object(whole.get("deviceInfo"), "deviceInfo")
        return _text(info, "devEui", "deviceInfo/devEui").lower(), chirpstack_facts(event, whole)

    def downlink(self, command: Command, f_port: int, confirmed: bool, data: bytes) -> bytes:
        item = {
            "id": key_of(command.command_id),
            "devEui": command.credential,
            "confirmed": confirmed,
            "fPort": f_port,
            "data": base64.b64encode(data).decode(),
        }
        return json.dumps(item).encode()

    def answer(self, event: str, document: Any) -> Answer | None:
        whole = _object(document, "")
        if event == "ack":
            done = whole.get("acknowledged", False) is True
            return Answer(
                _text(whole, "queueItemId"), "acked" if done else "failed", "" if done else "not acknowledged"
            )
        if event == "txack":
            return Answer(_text(whole, "queueItemId"), "", f"sent by gateway {str(whole.get('gatewayId', ''))[:40]}")
        context = whole.get("context")
        if (
            event == "log"
            and whole.get("level") == "ERROR"
            and isinstance(context, dict)
            and "queue_item_id" in context
        ):
            return Answer(str(context["queue_item_id"])[:100], "failed", str(whole.get("code", "error"))[:100])
        return None


class ThingsStack:
    """v3. `{application}` is `id@tenant`."""

    readings = "v3/{application}/devices/{device}/up"
    commands = "v3/{application}/devices/{device}/down/push"
    answers: tuple[str, ...] = tuple(
        f"v3/{{application}}/devices/{{device}}/down/{event}" for event in ("ack", "nack", "failed", "sent")
    )
    status = ""

    def uplink(self, document: Any) -> Uplink:
        whole = _object(document, "")
        message = _object(whole.get("uplink_message"), "uplink_message")
        ids = _object(whole.get("end_device_ids"), "end_device_ids")
        received = message.get("received_at", whole.get("received_at"))
        return Uplink(
            _text(ids, "device_id", "end_device_ids/device_id"),
            _count(message, "f_port", "uplink_message/f_port"),
            _count(message, "f_cnt", "uplink_message/f_cnt"),
            instant_ms(received, "iso8601", "uplink_message/received_at"),
            _bytes(message.get("frm_payload", ""), "uplink_message/frm_payload"),
            _decoded(message.get("decoded_payload"), "uplink_message/decoded_payload"),
        )

    def about(self, event: str, document: Any) -> tuple[str, DeviceFacts]:
        whole = _object(document, "")
        ids = _object(whole.get("end_device_ids"), "end_device_ids")
        return _text(ids, "device_id", "end_device_ids/device_id"), things_stack_facts(whole)

    def downlink(self, command: Command, f_port: int, confirmed: bool, data: bytes) -> bytes:
        item = {
            "f_port": f_port,
            "frm_payload": base64.b64encode(data).decode(),
            "priority": "NORMAL",
            "confirmed": confirmed,
            "correlation_ids": [f"flexrelay:{key_of(command.command_id)}"],
        }
        return json.dumps({"downlinks": [item]}).encode()

    def answer(self, event: str, document: Any) -> Answer | None:
        whole = _object(document, "")
        told = whole.get(f"downlink_{event}")
        inner = told.get("downlink", told) if isinstance(told, dict) else {}
        for holder in (inner, whole):
            ids = holder.get("correlation_ids") if isinstance(holder, dict) else None
            for each in ids if isinstance(ids, list) else ():
                if isinstance(each, str) and each.startswith("flexrelay:"):
                    state = {"ack": "acked", "nack": "failed", "failed": "failed"}.get(event, "")
                    return Answer(each.removeprefix("flexrelay:"), state, event)
        return None


SERVERS: Final[Mapping[str, Server]] = {"chirpstack": ChirpStack(), "things_stack": ThingsStack()}


class LorawanDialect:
    """Commands as downlinks: `mqtt.commands.Dialect`. One that the device does not confirm is acked by its sending."""

    def __init__(self, server: Server, application: str, downlinks: Mapping[str, Any]) -> None:
        self._server = server
        self._application = application
        self._downlinks = downlinks
        self._known: dict[str, tuple[str, bool]] = {}
        """Downlink's id → command's id, and whether the device confirms it; the newest ones."""

    def topics(self, results: str) -> tuple[TopicPattern, ...]:
        return tuple(TopicPattern(topic.replace("{application}", self._application)) for topic in self._server.answers)

    def payload(self, command: Command) -> bytes:
        down = self._downlinks.get(command.name)
        if down is None:
            raise ValueError(f"{command.name} has no downlink in `commands`")
        data = down.write({**command.parameters, "expires_at": command.expires_at})
        while len(self._known) >= _KNOWN:
            del self._known[next(iter(self._known))]
        self._known[key_of(command.command_id)] = (command.command_id, down.confirmed)
        return self._server.downlink(command, down.f_port, down.confirmed, data)

    def tells_beginning(self, command: Command) -> bool:
        down = self._downlinks.get(command.name)
        return down is None or "from_ms" in down.fields

    def result(self, topic: str, payload: bytes) -> CommandResult | None:
        event = topic.rpartition("/")[2]
        try:
            answer = self._server.answer(event, parse_json(payload))
        except DecodeError as error:
            raise ValueError(f"not an answer to a downlink: {error}") from None
        known = self._known.get(answer.key) if answer is not None else None
        if answer is None or known is None:
            return None
        command_id, confirmed = known
        state = answer.state or ("" if confirmed else "acked")
        if state not in ("acked", "failed"):
            return None
        return CommandResult(
            command_id=command_id, state="acked" if state == "acked" else "failed", detail=answer.detail
        )


def _object(value: Any, place: str) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise DecodeError("not_an_uplink", f"expected an object at {place or 'the top'}", place)
    return value


def _text(holder: Mapping[str, Any], name: str, place: str = "") -> str:
    value = holder.get(name)
    if type(value) is not str or not 1 <= len(value) <= 200:
        raise DecodeError("not_an_uplink", f"expected a text at {place or name}", place or name)
    return value


def _count(holder: Mapping[str, Any], name: str, place: str) -> int:
    value = holder.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**32:
        raise DecodeError("not_an_uplink", f"expected a count at {place}", place)
    return value


def _bytes(value: Any, place: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise DecodeError("not_base64", "the payload is no base64", place) from None


def _decoded(value: Any, place: str) -> Mapping[str, Any] | None:
    return None if value is None else _object(value, place)
