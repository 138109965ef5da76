"""What is known of a device: by its own answer to DevStatusReq (battery), and by the network server's records of it."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.facts import NO_FACTS, cleaned

_DEVICES: Final = 100_000


class Nameplates:
    """In memory, what each device was said to be last; the one not heard of for longest is forgotten first."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, DeviceFacts] = OrderedDict()

    def told(self) -> Sequence[tuple[str, DeviceFacts]]:
        """See `FactTeller`."""
        return list(self._known.items())

    def learn(self, device: str, told: DeviceFacts) -> None:
        """What is not told this time stays."""
        if told == NO_FACTS:
            return
        before = self._known.get(device, NO_FACTS)
        self._known[device] = DeviceFacts(
            told.manufacturer or before.manufacturer,
            told.model or before.model,
            told.serial or before.serial,
            told.firmware or before.firmware,
            before.battery_permille if told.battery_permille is None else told.battery_permille,
        )
        self._known.move_to_end(device)
        if len(self._known) > _DEVICES:
            self._known.popitem(last=False)


def chirpstack_facts(event: str, document: Mapping[str, Any]) -> DeviceFacts:
    """Of an `up` or `status` event. The model is the name of the device profile. The battery's level (%) is there only
    when the device has told it; a level of 0 is left out by the server."""
    info = _inner(document, "deviceInfo")
    battery: object = None
    if event == "status" and not (document.get("externalPowerSource") or document.get("batteryLevelUnavailable")):
        battery = document.get("batteryLevel", 0)
    return _facts("", info.get("deviceProfileName"), "", battery)


def things_stack_facts(document: Mapping[str, Any]) -> DeviceFacts:
    """Of an uplink: the version identifiers of the device repository, and the battery's level (%) that the device told
    last."""
    message = _inner(document, "uplink_message")
    version = _inner(message, "version_ids")
    battery = _inner(message, "last_battery_percentage").get("value")
    return _facts(version.get("brand_id"), version.get("model_id"), version.get("firmware_version"), battery)


def _facts(manufacturer: object, model: object, firmware: object, percent: object) -> DeviceFacts:
    """What is no text or no number is left out."""
    battery = None
    if isinstance(percent, int | float | Decimal) and not isinstance(percent, bool) and 0 <= percent <= 100:
        battery = round(percent * 10)
    return cleaned(DeviceFacts(_text(manufacturer), _text(model), "", _text(firmware), battery))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _inner(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = holder.get(name)
    return value if isinstance(value, dict) else {}
