"""The JSON protocol of the FIWARE IoT Agent: an object of measures, or a list of them; commands by name. Pure."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from flexrelay_adapters.iotagent.dialect import Result, Told
from flexrelay_sdk import DecodeError
from flexrelay_sdk.mapping import MAX_ITEMS, parse_json


class FiwareJson:
    """`Dialect`."""

    protocol = "fiware_json"
    level = "json"
    path = "/iot/json"
    media_type = "application/json"

    def groups(self, payload: bytes) -> list[dict[str, Any]]:
        """Raises DecodeError: not_utf8, not_json, duplicate_name, not_a_number, bad_items."""
        value = parse_json(payload)
        if type(value) is dict:
            return [value]
        if type(value) is list and 1 <= len(value) <= MAX_ITEMS and all(type(each) is dict for each in value):
            return value
        raise DecodeError("bad_items", f"expected an object of measures, or a list of 1 to {MAX_ITEMS} objects")

    def value(self, payload: bytes) -> Any:
        """JSON, or a bare text as the IoT Agent takes it."""
        try:
            return parse_json(payload)
        except DecodeError as error:
            if error.reason != "not_json":
                raise
            return payload.decode()

    def most_groups(self, payload: bytes) -> int:
        return 1 if payload.startswith(b"{") else min(payload.count(b"{") + 1, MAX_ITEMS)

    def is_result(self, payload: bytes) -> bool:
        return False  # they have a path of their own

    def results(self, payload: bytes) -> list[Result]:
        """`{"<command>": <result>, …}`."""
        try:
            value = json.loads(payload)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(value, dict) or not value:
            raise ValueError("not an object of results by command")
        return [Result(name, each if isinstance(each, str) else json.dumps(each)) for name, each in value.items()]

    def command(self, device: str, name: str, told: Told) -> bytes:
        body = dict(told) if isinstance(told, Mapping) else float(told) if isinstance(told, Decimal) else told
        return json.dumps({name: body}, separators=(",", ":")).encode()

    def together(self, commands: Sequence[bytes]) -> bytes:
        merged: dict[str, Any] = {}
        for command in commands:
            merged |= json.loads(command)
        return json.dumps(merged, separators=(",", ":")).encode()
