"""What a birth says of its node or device: the specification's property metrics, and what is common beside them."""

from typing import Final

from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Payload
from flexrelay_sdk import DeviceFacts
from flexrelay_sdk.facts import cleaned

_FACTS: Final = {
    "Properties/Hardware Make": "manufacturer",
    "Properties/Hardware Model": "model",
    "Properties/Serial Number": "serial",  # not of the specification, which has none
    "Properties/FW Version": "firmware",
    "Properties/FW": "firmware",
}


def facts_of(birth: Payload) -> DeviceFacts:
    """Only texts count; the specification's own name before a common one."""
    told: dict[str, str] = {}
    for metric in birth.metrics:
        name = _FACTS.get(metric.name)
        if name is None or metric.is_null or metric.WhichOneof("value") != "string_value":
            continue
        if name not in told or metric.name == "Properties/FW":
            told[name] = metric.string_value
    return cleaned(
        DeviceFacts(
            told.get("manufacturer", ""), told.get("model", ""), told.get("serial", ""), told.get("firmware", "")
        )
    )
