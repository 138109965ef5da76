"""`flexrelay demo`."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from flexrelay.cli.output import BAD_INPUT, UNAVAILABLE, err, explained, fail, out


def demo(
    serve: Annotated[bool, typer.Option(help="Keep the gateways up until Ctrl-C.")] = True,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as JSON.")] = None,
    folder: Annotated[Path | None, typer.Option(help="The data folder to make; a new one below ./run without.")] = None,
    rate: Annotated[int, typer.Option(min=60, max=20_000, help="Market seconds a second.")] = 1920,
    lead: Annotated[float, typer.Option(min=5, max=600, help="Seconds from the founding to the first gate.")] = 40.0,
    broker: Annotated[str, typer.Option(help="auto: Mosquitto when it is installed, else amqtt; or amqtt.")] = "auto",
    ledger: Annotated[str, typer.Option(help="embedded, or fabric: a native network.")] = "embedded",
    fabric: Annotated[str, typer.Option(help="Fabric's version: 3.1 or 2.5.")] = "3.1",
    json_: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of tables.")] = False,
) -> None:
    """One true story on real input: from devices' readings to a settled market."""
    from flexrelay.demo.barrier import StoryStuck
    from flexrelay.demo.ledger import LedgerKind
    from flexrelay.demo.run import Options, Outcome, default_folder, run
    from flexrelay.demo.stage import Stage
    from flexrelay.demo.summary import show

    if broker not in ("auto", "amqtt"):
        fail(f"--broker {broker}: auto or amqtt", BAD_INPUT, json_)
    if ledger not in ("embedded", "fabric"):
        fail(f"--ledger {ledger}: embedded or fabric", BAD_INPUT, json_)
    if fabric not in ("3.1", "2.5"):
        fail(f"--fabric {fabric}: 3.1 or 2.5", BAD_INPUT, json_)
    kind: LedgerKind = "fabric" if ledger == "fabric" else "embedded"
    target = folder or default_folder()
    if target.exists():
        fail(f"{target} exists already; name another folder", BAD_INPUT, json_)
    bar = Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err)
    step = bar.add_task("starting")
    seen: list[str] = []

    def progress(text: str) -> None:
        if seen:
            bar.console.print(f"  ✓ {seen[-1]}", style="green", markup=False)
        seen.append(text)
        bar.update(step, description=text)

    async def after(stage: Stage, outcome: Outcome) -> None:
        progress("done")
        bar.stop()
        if report is not None:
            await asyncio.to_thread(shutil.copyfile, stage.folder / "report.json", report)
        if json_:
            out.print_json(json.dumps(outcome.report))
        else:
            show(outcome)
        again = f"flexrelay run {target} goes on with it"
        if kind == "fabric":
            again = f"its network is ended with the demo: {target / 'fabric'}"
        err.print(f"\nData folder: {target}  ({again})", markup=False)
        if serve:
            err.print("The gateways stay up; Ctrl-C ends them.", markup=False)
            await asyncio.Event().wait()

    with explained(json_):
        try:
            with bar:
                options = Options(target, rate, lead, embedded_broker=broker == "amqtt", ledger=kind, fabric=fabric)
                asyncio.run(run(options, progress, after))
        except StoryStuck as stuck:
            fail(str(stuck), UNAVAILABLE, json_)
        except KeyboardInterrupt:
            err.print("stopped", markup=False)
