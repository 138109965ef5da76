"""The adapter's configuration and topics: what is refused, and that secrets stay secret."""

from __future__ import annotations

import re
import tomllib
from importlib import resources
from typing import Any

import pytest
from pydantic import ValidationError

from flexrelay_adapters.mqtt import MappingCodec, MqttConfig
from flexrelay_adapters.mqtt.config import JsonMapping
from flexrelay_adapters.mqtt.topics import TopicPattern
from flexrelay_sdk import Frame

BASE: dict[str, Any] = {"client_id": "gw", "readings": ["flexrelay/v1/dso/{device}/readings"]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"port": 0}, "port"),
        ({"readings": []}, "at least 1"),
        ({"readings": ["a/b"]}, "needs the level"),
        ({"readings": ["{device}/{device}"]}, "exactly once"),
        ({"readings": ["x{device}/a"]}, "needs the level"),
        ({"readings": ["{device}/#"]}, "is not allowed"),
        ({"readings": ["{device}/a+b"]}, "is not allowed"),
        ({"readings": ["$share/g/{device}"]}, "shared_group"),
        ({"commands": "a/{device}/c"}, "belong together"),
        ({"commands": "+/{device}/c", "results": "a/{device}/r"}, "names one device"),
        ({"password": "secret"}, "password without username"),
        ({"shared_group": "g", "protocol": "3.1.1"}, "needs protocol 5"),
        ({"protocol": "4"}, "protocol"),
        ({"tls": {"certificate": "c.pem"}}, "belong together"),
        ({"backoff_min_s": 5, "backoff_max_s": 1}, "backoff_max_s"),
        ({"max_payload_bytes": 2**20, "max_pending_bytes": 2**16}, "max_pending_bytes"),
        ({"hots": "x"}, "Extra inputs"),
        ({"codec": "sparkplug"}, "flexrelay"),
    ],
)
def test_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(says)):
        MqttConfig.model_validate({**BASE, **changes})


def test_the_password_is_not_shown() -> None:
    config = MqttConfig.model_validate({**BASE, "username": "u", "password": "hunter2"})
    assert "hunter2" not in repr(config) + str(config) + config.model_dump_json()


@pytest.mark.parametrize(
    ("pattern", "topic", "credential"),
    [
        ("a/{device}/r", "a/m1/r", "m1"),
        ("a/{device}/r", "a/m1/x/r", None),
        ("a/{device}/r", "a//r", None),
        ("a/{device}/r", "b/m1/r", None),
        ("{device}", "m1", "m1"),
        ("{device}", "m1/x", None),
        ("+/{device}/r", "b/m1/r", "m1"),
        ("+/{device}/r", "b/m1/s", None),
        ("+/{device}/r", "b//r", None),
        ("+/{device}/r", "m1/r", None),
    ],
)
def test_topics(pattern: str, topic: str, credential: str | None) -> None:
    assert TopicPattern(pattern).credential_of(topic) == credential


def test_the_readme_sample_is_a_configuration_that_decodes_its_payload() -> None:
    text = resources.files("flexrelay_adapters.mqtt").joinpath("README.md").read_text()
    sample = tomllib.loads(re.findall(r"```toml\n(.*?)```", text, re.S)[0])
    config = MqttConfig.model_validate(sample["adapters"]["plant"])
    assert isinstance(config.codec, JsonMapping)
    payload = re.findall(r"```json\n(.*?)```", text, re.S)[0].encode()
    (measurement,) = MappingCodec(config.codec).decode(Frame("mqtt", "inv7", payload, 1)).measurements
    assert dict(measurement.registers) == {"export_j": 4_444_441_200, "power_w": -1235}
    assert (measurement.observed_at, measurement.seq) == (1_463_738_400_000, 12)
