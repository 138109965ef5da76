"""Values in metrics, commands in payloads, and bombs."""

from __future__ import annotations

import gzip
import zlib
from decimal import Decimal
from typing import Any

import pytest

from flexrelay_adapters.mqtt.commands import Waiting
from flexrelay_adapters.sparkplug import payload as values
from flexrelay_adapters.sparkplug.commands import Pending, command_payload, rebirth_payload, reported
from flexrelay_adapters.sparkplug.config import CommandMapping, SparkplugConfig
from flexrelay_adapters.sparkplug.frame import Told
from flexrelay_adapters.sparkplug.nodes import Thing
from flexrelay_adapters.sparkplug.payload import read_payload, set_value, value_of
from flexrelay_adapters.sparkplug.sparkplug_b_pb2 import Metric, Payload
from flexrelay_adapters.sparkplug.topics import address_of, topic_for
from flexrelay_sdk import Command, CommandUpdate, DecodeError


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        (-128, values.INT8), (-1, values.INT16), (-(2**31), values.INT32), (-(2**63), values.INT64),
        (255, values.UINT8), (2**32 - 1, values.UINT32), (2**64 - 1, values.UINT64),
        (1_700_000_000_000, values.DATETIME),
        (7, values.DOUBLE), (Decimal("1.25"), values.DOUBLE), (1, values.BOOLEAN), ("text", values.STRING),
    ],
)  # fmt: skip
def test_a_value_comes_back_as_it_was_written(value: Any, datatype: int) -> None:
    metric = Metric()
    set_value(metric, value, datatype)
    again = Metric()
    again.ParseFromString(metric.SerializeToString())
    assert value_of(again, 0) == value


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        (128, values.INT8), (-1, values.UINT8), (2**63, values.INT64), (Decimal("1.5"), values.INT32),
        ("text", values.INT32), (2, values.BOOLEAN), (Decimal("1e60"), values.FLOAT), (1, 99),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused(value: Any, datatype: int) -> None:
    with pytest.raises(ValueError):
        set_value(Metric(), value, datatype)


def test_a_short_sign_is_read_as_a_long_one() -> None:
    assert value_of(Metric(datatype=values.INT8, int_value=0xFF), 0) == -1
    assert value_of(Metric(datatype=values.INT8, int_value=0xFFFFFFFF), 0) == -1
    assert value_of(Metric(int_value=0xFFFE), values.INT16) == -2
    assert value_of(Metric(datatype=values.FLOAT, float_value=0.1), 0) == Decimal("0.1")
    assert value_of(Metric(is_null=True, int_value=1), 3) is None


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress])
def test_compressed_payloads_are_read_and_bombs_are_not(pack: Any) -> None:
    inner = Payload(timestamp=5, seq=6)
    outer = Payload(uuid="SPBV1.0_COMPRESSED", body=pack(inner.SerializeToString()))
    assert read_payload(outer.SerializeToString()) == inner
    bomb = Payload(uuid="SPBV1.0_COMPRESSED", body=pack(bytes(50_000_000)))
    with pytest.raises(DecodeError, match=r"^oversized"):
        read_payload(bomb.SerializeToString())
    whole = Payload(metrics=[Metric(name=f"m{n}", int_value=n) for n in range(99)]).SerializeToString()
    for body in (b"no such thing", *(pack(whole)[:-cut] for cut in range(9, 99))):  # many inflate to whole metrics
        broken = Payload(uuid="SPBV1.0_COMPRESSED", body=body)
        with pytest.raises(DecodeError, match=r"^not_sparkplug"):
            read_payload(broken.SerializeToString())


def command(**parameters: int) -> Command:
    return Command("c1", "did:example:d", "g/n/d", "set_power", parameters, 2_000_000_000_000, "order")


def thing(*told: Told) -> Thing:
    return Thing(told={each.name: each for each in told}, born=True)


def mapping(**more: Any) -> CommandMapping:
    write = {"power_w": {"metric": "Set", "unit": "kW", "negate": True}}
    return CommandMapping.model_validate({"write": write, **more})


def test_a_command_names_its_metrics_by_alias_where_the_birth_has_one() -> None:
    there = thing(Told(4, "Set", values.DOUBLE), Told(None, "Id", values.STRING), Told(6, "Until", values.DATETIME))
    made = command_payload(command(power_w=-1500), mapping(command_id="Id", expires_at="Until"), there, 9)
    payload = Payload()
    payload.ParseFromString(made)
    assert [(m.name, m.alias if m.HasField("alias") else None) for m in payload.metrics] == [
        ("", 4), ("Id", None), ("", 6),
    ]  # fmt: skip
    assert reported(payload, there.told) == {"Set": 1.5, "Id": "c1", "Until": 2_000_000_000_000}


@pytest.mark.parametrize("told", [(), (Told(4, "Set", values.INT32),), (Told(4, "Set", 19),)])
def test_a_command_that_the_device_cannot_hold_is_told(told: tuple[Told, ...]) -> None:
    with pytest.raises(ValueError):
        command_payload(command(power_w=-1500), mapping(), thing(*told), 9)


async def _ignored(update: CommandUpdate) -> None: ...


@pytest.mark.parametrize(
    ("said", "state"),
    [({"Set": 1.5}, "acked"), ({"Set": 1.4}, None), ({}, None), ({"Set": True}, None), ({"Set": None}, None)],
)
async def test_without_a_result_the_reported_value_is_the_answer(said: dict[str, Any], state: str | None) -> None:
    verdict = Pending(Waiting(command(power_w=-1500), _ignored), mapping()).verdict(said)
    assert (verdict[0].value if verdict is not None else None) == state


async def test_what_was_written_before_an_outage_is_no_answer() -> None:
    """A node that was offline sends what it kept: what a metric was then, and the answers that it could not give."""
    there = thing(Told(4, "Set", values.DOUBLE), Told(None, "Result", values.STRING))
    payload = Payload()
    payload.metrics.add(alias=4, double_value=1.5, is_historical=True)
    payload.metrics.add(name="Result", string_value="c1|acked|", is_historical=True)
    told = reported(payload, there.told)
    waiting = Waiting(command(power_w=-1500), _ignored)
    assert Pending(waiting, mapping()).verdict(told) is None
    assert Pending(waiting, mapping(command_id="Id", result="Result")).verdict(told) is not None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("c1|acked|fine", ("acked", "fine")), ("c1|failed|", ("failed", "")), ("c2|acked|", None), ("c1|maybe|", None),
        ("c1", None), (None, None), (7, None),
    ],
)  # fmt: skip
async def test_a_result_metric_names_the_command(said: Any, expected: Any) -> None:
    pending = Pending(Waiting(command(power_w=-1500), _ignored), mapping(command_id="Id", result="Result"))
    verdict = pending.verdict({"Result": said, "Set": 1.5})
    assert (None if verdict is None else (verdict[0].value, verdict[1])) == expected


def test_the_rebirth_request() -> None:
    payload = Payload()
    payload.ParseFromString(rebirth_payload(5))
    (metric,) = payload.metrics
    assert metric.name == "Node Control/Rebirth" and metric.boolean_value and not metric.HasField("alias")


def test_topics() -> None:
    address = address_of("spBv1.0/g/DDATA/n/d")
    assert address is not None and (address.credential, address.of_node) == ("g/n/d", "g/n")
    assert topic_for("g/n/d", "NCMD") == "spBv1.0/g/DCMD/n/d" and topic_for("g/n", "NDATA") == "spBv1.0/g/NDATA/n"
    assert address_of(f"spBv1.0/g/DDATA/n/{'d' * 900}") is not None
    assert address_of(f"spBv1.0/g/DDATA/n/{'d' * 1000}") is None
    for topic in ("spBv1.0/g/NCMD/n", "spBv1.0/g/NDATA/n/d", "spBv1.0/g/DDATA/n", "spBv1.0/STATE/h", "x/g/NDATA/n", ""):
        assert address_of(topic) is None
    for credential in ("g", "g/n/d/e", "g//d", "g/+/d", ""):
        with pytest.raises(ValueError):
            topic_for(credential, "NCMD")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"registers": {}}, "registers"),
        ({"registers": {"power_w": {"metric": "P", "unit": "kWh"}}}, "registers: .*kWh"),
        ({"host_id": "a/b"}, "host_id"),
        ({"groups": ["a/#"]}, r"groups\.0"),
        ({"commands": {"fly": {"write": {"on": {"metric": "M"}}}}}, "commands: .*unknown command"),
        ({"commands": {"set_power": {"write": {"power_w": {"metric": "M"}}}}}, "commands: .*unit"),
        ({"commands": {"switch": {"write": {"on": {"metric": "M"}}, "result": "R"}}}, "commands.switch: .*command_id"),
    ],
)
def test_a_wrong_configuration_names_its_field(change: dict[str, Any], message: str) -> None:
    section = {"client_id": "c", "host_id": "h", "registers": {"power_w": {"metric": "P", "unit": "W"}}, **change}
    with pytest.raises(ValueError, match=f"^{message}"):
        SparkplugConfig.from_section("plant", section)
