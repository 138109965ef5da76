"""An adapter's section: every key that is wrong is named at once, by its path, and no value is shown."""

from typing import Any

import pytest

from flexrelay_sdk.config import AdapterConfig, Section


class Server(Section):
    host: str
    port: int = 1


class Sample(AdapterConfig):
    client_id: str
    password: str = ""
    servers: tuple[Server, ...] = ()


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"clientid": "gw"}, "client_id is missing; clientid is not a known key"),
        ({"client_id": "gw", "password": 4711}, "password: Input should be a valid string"),
        (
            {"client_id": "gw", "servers": [{"host": "a", "port": "x"}, {"hots": "b"}]},
            "servers.0.port: Input should be a valid integer, unable to parse string as an integer; "
            "servers.1.host is missing; servers.1.hots is not a known key",
        ),
    ],
)
def test_every_wrong_key_is_named(section: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError) as caught:
        Sample.from_section("field", section)
    assert str(caught.value) == told
    assert "4711" not in str(caught.value)
