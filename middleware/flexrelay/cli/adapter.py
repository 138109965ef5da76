"""`flexrelay adapter`: what speaks to devices here, and a new one."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flexrelay.cli.output import BAD_INPUT, Json, fail, out, show, table
from flexrelay_sdk.quality import Installed, Level, installed_adapters, read_declaration, rules
from flexrelay_sdk.skeleton import NEXT, generate

app = typer.Typer(help="Adapters: what is installed, a new one.", no_args_is_help=True)


@app.command("list")
def list_(json_: Json = False) -> None:
    """Every installed adapter: abilities, quality level, or why it cannot be loaded."""
    found = list(installed_adapters())

    def render() -> None:
        rows = [
            (
                each.name,
                f"{each.distribution} {each.version}",
                ", ".join(sorted(ability.value for ability in each.abilities)) or "-",
                each.level.word if not each.problem else "-",
                "yes" if each.simulator else "no",
                each.problem,
            )
            for each in found
        ]
        table("adapters", ("name", "from", "abilities", "quality", "simulator", "problem"), rows)

    show([_json(each) for each in found], json_, render)


@app.command("show")
def show_(name: Annotated[str, typer.Argument(help="As `adapter list` names it.")], json_: Json = False) -> None:
    """One adapter: every rule of the quality scale, where it is shown or why it is left out."""
    found = {each.name: each for each in installed_adapters()}
    if name not in found:
        fail(f"there is no adapter {name}; there are {', '.join(found) or 'none'}", BAD_INPUT, json_)
    adapter = found[name]
    declared = read_declaration(adapter.folder) if adapter.folder is not None else None
    done, exempt = (declared.done, declared.exempt) if declared is not None else ({}, {})
    scale = [
        {
            "rule": rule.id,
            "level": rule.level,
            "text": rule.text,
            "state": "done" if rule.id in done else "exempt" if rule.id in exempt else "missing",
            "where": done.get(rule.id) or exempt.get(rule.id, ""),
        }
        for rule in rules()
    ]

    def render() -> None:
        out.print(f"{name}: {adapter.level.word}, {adapter.target}", markup=False, soft_wrap=True)
        rows = [(rule["level"], rule["rule"], rule["state"], rule["where"]) for rule in scale]
        table("quality scale", ("level", "rule", "state", "where, or why not"), rows)

    show({**_json(adapter), "rules": scale}, json_, render)


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="The protocol's name, e.g. acme-hub.")],
    folder: Annotated[Path | None, typer.Option(help="Where; ./flexrelay-NAME without.")] = None,
    json_: Json = False,
) -> None:
    """Write a package for a new adapter: it works, and its tests pass, before anything is changed."""
    try:
        made = generate(name, folder)
    except FileExistsError:
        fail(f"{folder or f'flexrelay-{name}'} exists already; name another folder", BAD_INPUT, json_)
    except (ValueError, OSError) as error:
        fail(str(error), BAD_INPUT, json_)

    def render() -> None:
        out.print(f"{made}: {NEXT}", markup=False, soft_wrap=True)

    show({"folder": str(made), "files": sorted(str(f.relative_to(made)) for f in _files(made))}, json_, render)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _json(each: Installed) -> dict[str, Any]:
    return {
        "name": each.name,
        "distribution": each.distribution,
        "version": each.version,
        "target": each.target,
        "abilities": sorted(ability.value for ability in each.abilities),
        "quality": each.level.word if each.level is not Level.NONE else None,
        "simulator": each.simulator,
        "problem": each.problem or None,
    }
