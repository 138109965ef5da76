"""`flexrelay bench`: figures and ratios, never a verdict."""

import importlib
import json
import os
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from flexrelay.bench import Result
from flexrelay.cli.output import BAD_INPUT, err, fail, show, table

# name → module of flexrelay.bench that measures it; a module measures all of its names together
BENCHES = {
    "ingest_mqtt": "mqtt",
    "ingest_mqtt_signed": "mqtt",
    "twin": "ingest",
    "memory_devices": "ingest",
    "startup_backlog": "ingest",
    "ledger_embedded": "ledger",
    "clear_uniform": "clearing",
    "clear_pay_as_bid": "clearing",
    "merkle": "merkle",
    "opcua_changes": "opcua",
    "sparkplug_metrics": "platforms",
    "ultralight": "platforms",
    "fiware_json": "platforms",
    "opcua_pubsub": "platforms",
    "lwm2m_send": "lwm2m",
    "lwm2m_notify": "lwm2m",
    "lwm2m_update": "lwm2m",
    "lwm2m_dtls": "lwm2m",
    "modbus_blocks": "modbus",
    "fabric_throughput_16": "fabric.throughput",
    "fabric_throughput_64": "fabric.throughput",
    "fabric_throughput_128": "fabric.throughput",
    "fabric_cpu_64": "fabric.throughput",
    "fabric_latency_1": "fabric.throughput",
    "fabric_settle_10k_keys": "fabric.settle",
    "fabric_readings_anchored": "fabric.readings",
    "fabric_raft_leader_pause": "fabric.pause",
    "fabric_bft_leader_pause": "fabric.pause",
}
LONG = {"memory_growth": "growth", "lwm2m_memory": "lwm2m_memory", "fabric_memory": "fabric.memory"}
"""Ten minutes; only when asked for by name."""


def bench(
    name: Annotated[str, typer.Argument(help="One figure of the table in docs/benchmarks.md; all without.")] = "",
    json_file: Annotated[str, typer.Option("--json", metavar="FILE", help="Write the results as JSON; - prints.")] = "",
) -> None:
    """Measure this machine; timings are never a test's verdict."""
    known = BENCHES | LONG
    if name and name not in known:
        fail(f"there is no benchmark {name}; there are {', '.join(known)}", BAD_INPUT)
    modules = sorted({known[name]} if name else set(BENCHES.values()))
    results: list[Result] = []
    for module in modules:
        err.print(f"bench: {module} …")
        results += importlib.import_module(f"flexrelay.bench.{module}").run()
    if name:
        results = [result for result in results if result["name"] == name or result["name"] not in BENCHES]
    report = {"machine": machine(), "results": results}

    def render() -> None:
        rows = [
            (r["name"], f"{r['value']:,.4g}", r["unit"], f"{r['ratio']:.2f}" if r["against"] else "", r["against"])
            for r in results
        ]
        table("benchmarks", ("name", "value", "unit", "ratio", "against"), rows)

    if json_file and json_file != "-":
        Path(json_file).write_text(json.dumps(report, indent=2) + "\n")
        render()
    else:
        show(report, json_file == "-", render)


def machine() -> dict[str, Any]:
    """Size of the machine that a figure belongs to."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(pages * size / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
