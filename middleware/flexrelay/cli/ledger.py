"""`flexrelay ledger`: recompute it from block 0, or look into its blocks. Both work while a gateway runs."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flexrelay.cli.blocks import Blocks, connected, opened
from flexrelay.cli.folder import Folder, bar
from flexrelay.cli.instant import iso
from flexrelay.cli.output import BAD_INPUT, CHECK_FAILED, Json, err, explained, fail, out, show, table
from flexrelay.config import Config, load
from flexrelay.ledger.embedded import verify as recompute
from flexrelay.ledger.port import BlockView

app = typer.Typer(help="The ledger: verify it, look into it.", no_args_is_help=True)

_NEWEST = 20


@app.command()
def verify(folder: Folder, json_: Json = False) -> None:
    """Recompute chain and state from block 0, executing every public transaction again; exit 1 on any difference."""
    with explained(json_):
        config = load(folder)
        with bar() as progress:
            task = progress.add_task("blocks", total=None)

            def told(done: int, total: int) -> None:
                progress.update(task, completed=done, total=total)

            if config.ledger.kind == "fabric":
                report: Any = asyncio.run(_channel(folder, config, told))
            else:
                report = recompute(folder / config.ledger.folder, progress=told)

    def render() -> None:
        rows = [(name.replace("_", " "), value) for name, value in asdict(report).items() if name != "problems"]
        table("verified" if report.ok else "NOT verified", ("what", "value"), rows)
        for problem in report.problems:
            err.print(f"  ✗ {problem}", style="red", markup=False, soft_wrap=True)

    show({"verified": report.ok, **asdict(report)}, json_, render)
    if not report.ok:
        raise typer.Exit(CHECK_FAILED)


async def _channel(folder: Path, config: Config, told: Callable[[int, int], None]) -> Any:
    async with connected(folder, config) as host:
        return await host.verify(told)


@app.command("show")
def show_(
    folder: Folder,
    block: Annotated[int | None, typer.Option(min=0, help="One block with its transactions.")] = None,
    tx: Annotated[str, typer.Option(metavar="ID", help="One transaction in full.")] = "",
    json_: Json = False,
) -> None:
    """The newest blocks, one block, or one transaction: validation, events, who endorsed."""

    async def work() -> None:
        async with opened(folder, load(folder)) as blocks:
            if blocks.rest:
                text = f"{blocks.rest} bytes stand behind the last whole block: flexrelay ledger verify"
                err.print(text, markup=False)
            if tx:
                await _show_transaction(blocks, tx, json_)
            elif block is not None:
                await _show_block(blocks, block, json_)
            else:
                await _show_newest(blocks, json_)

    with explained(json_):
        asyncio.run(work())


async def _show_transaction(blocks: Blocks, tx: str, json_: bool) -> None:
    number = await blocks.find(tx)
    if number is None:
        fail(f"there is no transaction {tx}", BAD_INPUT, json_)
    view = await blocks.block(number)
    found = next(item for item in view.transactions if item.get("tx_id") == tx)
    document = {"block": number, "block_hash": view.hash, **found}
    show(document, json_, lambda: out.print_json(json.dumps(document)))


async def _show_block(blocks: Blocks, number: int, json_: bool) -> None:
    height = await blocks.height()
    if number >= height:
        fail(f"there is no block {number}; the ledger has {height}", BAD_INPUT, json_)
    view = await blocks.block(number)
    show(asdict(view), json_, lambda: _block(view))


async def _show_newest(blocks: Blocks, json_: bool) -> None:
    height = await blocks.height()
    views = [await blocks.block(number) for number in range(max(0, height - _NEWEST), height)]
    newest = [
        {"number": v.number, "hash": v.hash, "previous_hash": v.previous_hash, "transactions": _count(v)} for v in views
    ]
    rows = [
        (v.number, v.hash[:16], _count(v), _when(v), ", ".join(_events(v)), ", ".join(_endorsers(v))) for v in views
    ]
    columns = ("block", "hash", "transactions", "at", "events", "endorsed by")
    show({"height": height, "blocks": newest}, json_, lambda: table(f"newest of {height} blocks", columns, rows))


def _block(view: BlockView) -> None:
    out.print(f"block {view.number}  {view.hash}\nafter     {view.previous_hash}", soft_wrap=True)
    if view.number == 0:
        out.print_json(json.dumps(view.transactions))
        return
    for item in view.transactions:
        out.print(f"\n{item['tx_id']}  {item['validation']}", soft_wrap=True)
        out.print(f"  {_summary(item)}", markup=False, soft_wrap=True)
        for name, payload in item["events"]:
            out.print(f"  event {name} {json.dumps(payload, ensure_ascii=False)}", markup=False, soft_wrap=True)


def _summary(item: Any) -> str:
    function = item["function"] or "?"
    creator = item["creator"][0]
    endorsed = ", ".join(f"{org} ({how})" for org, how in item["orgs"])
    return f"{function} at {iso(item['timestamp'])}, carried by {creator}, endorsed by {endorsed or 'nobody'}"


def _count(view: BlockView) -> int:
    return len(view.transactions) if view.number else 0


def _when(view: BlockView) -> str:
    return iso(view.transactions[-1]["timestamp"]) if view.number else ""


def _events(view: BlockView) -> list[str]:
    if not view.number:
        return ["genesis"]
    return sorted({name for item in view.transactions for name, _ in item["events"]})


def _endorsers(view: BlockView) -> list[str]:
    return sorted({org for item in view.transactions for org, _ in item.get("orgs", ())})
