"""`flexrelay actor`: who takes part, in which roles, under which keys."""

from typing import Annotated

import typer

from flexrelay.app import Level
from flexrelay.cli.folder import Folder, Org, on_site
from flexrelay.cli.output import Json, out, show, table
from flexrelay.commissioning import Actor, add_actor, list_actors, revoke_role, rotate_key
from flexrelay.commissioning.actors import describe, find

app = typer.Typer(help="Actors: register, give and revoke roles, rotate keys.", no_args_is_help=True)

OrgOf = Annotated[str, typer.Option(help="The organisation whose wallet holds the actor's key.")]
Label = Annotated[str, typer.Option(help="The actor's name in that wallet; it stands nowhere on the ledger.")]


@app.command("add")
def add(
    folder: Folder,
    org: OrgOf,
    label: Label,
    role: Annotated[list[str] | None, typer.Option(help="A role to give, e.g. dso, aggregator, brp, consumer.")] = None,
    market: Annotated[list[str] | None, typer.Option(help="A market the roles are for; * without.")] = None,
    valid_days: Annotated[int, typer.Option(min=1, max=3660, help="How long the roles are held.")] = 366,
    json_: Json = False,
) -> None:
    """Make an actor's key, register its DID, and enrol roles by the operator's credentials; again adds what misses."""
    markets = tuple(market or ("*",))
    actor = on_site(
        folder,
        Level.ACTING,
        json_,
        lambda site: add_actor(site, org, label, tuple(role or ()), markets=markets, valid_days=valid_days),
    )
    _one(actor, json_)


@app.command("list")
def list_(folder: Folder, org: Org = "", json_: Json = False) -> None:
    """Actors whose keys are in this folder."""
    actors = on_site(folder, Level.READING, json_, lambda site: list_actors(site, org))
    rows = [(a.org, a.label, a.status, _roles(a), a.key_version, a.did) for a in actors]
    columns = ("org", "label", "status", "roles", "key", "DID")
    show([actor.to_json() for actor in actors], json_, lambda: table("actors", columns, rows))


@app.command("show")
def show_(folder: Folder, org: OrgOf, label: Label, json_: Json = False) -> None:
    """One actor as the ledger knows it."""
    _one(on_site(folder, Level.READING, json_, lambda site: describe(*find(site, org, label))), json_)


@app.command()
def revoke(
    folder: Folder,
    org: OrgOf,
    label: Label,
    role: Annotated[str, typer.Option(help="The role to take away.")],
    reason: Annotated[str, typer.Option(help="Stands on the ledger; nothing personal.")] = "",
    json_: Json = False,
) -> None:
    """The operator revokes a role; intents that need it are refused from that block on."""
    _one(on_site(folder, Level.ACTING, json_, lambda site: revoke_role(site, org, label, role, reason)), json_)


@app.command()
def rotate(folder: Folder, org: OrgOf, label: Label, json_: Json = False) -> None:
    """Replace an actor's key by the one its log has committed to; after an interruption, again finishes it."""
    _one(on_site(folder, Level.ACTING, json_, lambda site: rotate_key(site, org, label)), json_)


def _one(actor: Actor, as_json: bool) -> None:
    def render() -> None:
        out.print(f"{actor.label} of {actor.org}: {actor.status}, key version {actor.key_version}", markup=False)
        out.print(actor.did, soft_wrap=True)
        out.print(f"roles: {_roles(actor) or 'none'}", markup=False)

    show(actor.to_json(), as_json, render)


def _roles(actor: Actor) -> str:
    return ", ".join(
        role if markets == ("*",) else f"{role} ({' '.join(markets)})" for role, markets in sorted(actor.roles.items())
    )
