"""What the two network servers write and read on MQTT, for simulated devices: written here once more from the
documented formats, without the adapter's code, so that both do not share a mistake."""

import base64
import binascii
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

_GATEWAY: Final = "0016c001f153a14c"
_NAMESPACE: Final = uuid.UUID("3d0b1b1e-4f5a-5d39-9e41-0d0c5f1b7a52")


class Downlink(NamedTuple):
    """`key` is what the network server calls it by; `item` as it was enqueued."""

    key: str
    f_port: int
    data: bytes
    confirmed: bool
    item: Mapping[str, Any]


Message = tuple[str, bytes]
"""Topic and payload."""


class NetworkServer(ABC):
    """One application of a network server. `name` is what it calls a device by on its topics."""

    downlinks: str
    """Filter of the topics on which downlinks are enqueued."""

    def __init__(self, application: str) -> None:
        self.application = application

    @abstractmethod
    def name_of(self, device: str, eui: str) -> str: ...

    @abstractmethod
    def uplink(self, name: str, eui: str, f_cnt: int, at_ms: int, f_port: int, data: bytes) -> Message:
        """Zeros and empty values are left out, as protobuf's JSON does: port 0 is a frame without one."""
        ...

    @abstractmethod
    def sent(self, name: str, downlink: Downlink) -> Message: ...

    @abstractmethod
    def acknowledged(self, name: str, downlink: Downlink, done: bool) -> Message: ...

    def enqueued(self, topic: str, payload: bytes) -> tuple[str, Sequence[Downlink]]:
        """(Name of the device, its downlinks); none of what is no downlink."""
        levels = topic.split("/")
        try:
            return levels[3], self._downlinks(json.loads(payload))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, binascii.Error):
            return levels[3] if len(levels) > 3 else "", ()

    @abstractmethod
    def _downlinks(self, document: Any) -> Sequence[Downlink]: ...


class ChirpStack(NetworkServer):
    """v4: `application/<id>/device/<eui>/event/…` and `…/command/down`."""

    def __init__(self, application: str) -> None:
        super().__init__(application)
        self.downlinks = f"application/{application}/device/+/command/down"

    def name_of(self, device: str, eui: str) -> str:
        return eui

    def uplink(self, name: str, eui: str, f_cnt: int, at_ms: int, f_port: int, data: bytes) -> Message:
        document: dict[str, Any] = {
            "deduplicationId": str(uuid.uuid5(_NAMESPACE, f"{eui}/{f_cnt}")),
            "time": _iso(at_ms),
            "deviceInfo": {"applicationId": self.application, "applicationName": "simulation", "devEui": eui},
            "devAddr": eui[-8:],
            "adr": True,
            "dr": 3,
            **({"fCnt": f_cnt} if f_cnt else {}),
            **({"fPort": f_port} if f_port else {}),
            **({"data": base64.b64encode(data).decode()} if data else {}),
            "rxInfo": [{"gatewayId": _GATEWAY, "rssi": -71, "snr": 9.5}],
        }
        return self._event(name, "up", document)

    def sent(self, name: str, downlink: Downlink) -> Message:
        document = {"time": _iso_now(), "queueItemId": downlink.key, "gatewayId": _GATEWAY}
        return self._event(name, "txack", document)

    def acknowledged(self, name: str, downlink: Downlink, done: bool) -> Message:
        document = {"time": _iso_now(), "queueItemId": downlink.key, **({"acknowledged": True} if done else {})}
        return self._event(name, "ack", document)

    def _downlinks(self, item: Any) -> Sequence[Downlink]:
        data = base64.b64decode(item["data"], validate=True)
        key = str(item.get("id") or uuid.uuid5(_NAMESPACE, json.dumps(item, sort_keys=True)))
        return [Downlink(key, int(item["fPort"]), data, item.get("confirmed") is True, item)]

    def _event(self, name: str, event: str, document: Mapping[str, Any]) -> Message:
        return f"application/{self.application}/device/{name}/event/{event}", _json(document)


class ThingsStack(NetworkServer):
    """v3: `v3/<application>@<tenant>/devices/<id>/up`, `…/down/push` and what becomes of it."""

    def __init__(self, application: str) -> None:
        super().__init__(application)
        self.downlinks = f"v3/{application}/devices/+/down/push"

    def name_of(self, device: str, eui: str) -> str:
        return device

    def uplink(self, name: str, eui: str, f_cnt: int, at_ms: int, f_port: int, data: bytes) -> Message:
        message: dict[str, Any] = {
            **({"f_cnt": f_cnt} if f_cnt else {}),
            **({"f_port": f_port} if f_port else {}),
            **({"frm_payload": base64.b64encode(data).decode()} if data else {}),
            "rx_metadata": [{"gateway_ids": {"gateway_id": "roof", "eui": _GATEWAY.upper()}, "rssi": -71, "snr": 9.5}],
            "received_at": _iso(at_ms),
        }
        ids = {**self._ids(name), "dev_eui": eui.upper()}
        document = {"end_device_ids": ids, "received_at": _iso(at_ms), "uplink_message": message}
        return f"v3/{self.application}/devices/{name}/up", _json(document)

    def sent(self, name: str, downlink: Downlink) -> Message:
        return self._event(name, "sent", downlink)

    def acknowledged(self, name: str, downlink: Downlink, done: bool) -> Message:
        return self._event(name, "ack" if done else "nack", downlink)

    def _event(self, name: str, event: str, downlink: Downlink) -> Message:
        document = {
            "end_device_ids": self._ids(name),
            "correlation_ids": downlink.item.get("correlation_ids", []),
            "received_at": _iso_now(),
            f"downlink_{event}": dict(downlink.item),
        }
        return f"v3/{self.application}/devices/{name}/down/{event}", _json(document)

    def _ids(self, name: str) -> dict[str, Any]:
        return {"device_id": name, "application_ids": {"application_id": self.application.partition("@")[0]}}

    def _downlinks(self, document: Any) -> Sequence[Downlink]:
        found = []
        for item in document["downlinks"]:
            data = base64.b64decode(item["frm_payload"], validate=True)
            key = str(uuid.uuid5(_NAMESPACE, json.dumps(item, sort_keys=True)))
            found.append(Downlink(key, int(item["f_port"]), data, item.get("confirmed") is True, item))
        return found


SERVERS: Final[Mapping[str, type[NetworkServer]]] = {"chirpstack": ChirpStack, "things_stack": ThingsStack}


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _iso_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
