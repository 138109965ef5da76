"""`flexrelay opcua`: which OPC UA servers are trusted, our own certificate, and what a server has."""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexrelay.adapters import load_adapter
from flexrelay.cli.folder import Folder
from flexrelay.cli.output import BAD_INPUT, UNAVAILABLE, Json, explained, fail, out, show, table
from flexrelay.config import load

if TYPE_CHECKING:
    from flexrelay_adapters.opcua import TrustList
    from flexrelay_adapters.opcua.trust import Known

app = typer.Typer(help="OPC UA: servers' certificates, our own, browsing.", no_args_is_help=True)

Adapter = Annotated[str, typer.Option(metavar="NAME", help="The adapter of the configuration; the only one without.")]
Thumbprint = Annotated[str, typer.Argument(help="The beginning of the certificate's SHA-256 thumbprint.")]


@app.command("list")
def list_(folder: Folder, adapter: Adapter = "", json_: Json = False) -> None:
    """Servers' certificates: trusted, waiting for a decision (pending), rejected."""
    found = _trust(folder, adapter, json_).list()
    rows = [(k.thumbprint[:16], k.state, k.application_uri, k.subject, f"{k.valid_until:%F}") for k in found]
    columns = ("thumbprint", "state", "application URI", "subject", "valid until")
    show([_json(known) for known in found], json_, lambda: table("certificates", columns, rows))


@app.command()
def trust(folder: Folder, thumbprint: Thumbprint, adapter: Adapter = "", json_: Json = False) -> None:
    """Trust a server's certificate that waits, or take back that it was rejected. Compare the thumbprint first."""
    _decide(folder, thumbprint, adapter, json_, "trust")


@app.command()
def reject(folder: Folder, thumbprint: Thumbprint, adapter: Adapter = "", json_: Json = False) -> None:
    """Never trust this certificate (any more)."""
    _decide(folder, thumbprint, adapter, json_, "reject")


@app.command()
def add(
    folder: Folder,
    file: Annotated[Path, typer.Argument(help="A certificate or revocation list, PEM or DER.")],
    adapter: Adapter = "",
    json_: Json = False,
) -> None:
    """Trust a certificate that came another way; of an authority: all servers that it vouches for.

    An authority's revocation list takes that back for those that it names."""
    with explained(json_):
        data = file.read_bytes()
    try:
        _told(_trust(folder, adapter, json_).add(data), json_)
    except ValueError as error:
        fail(f"{file}: {error}", BAD_INPUT, json_)


@app.command()
def certificate(
    folder: Folder,
    adapter: Adapter = "",
    renew: Annotated[
        bool, typer.Option("--renew", help="Make a new key and certificate where there are some.")
    ] = False,
    json_: Json = False,
) -> None:
    """Make our own certificate for an adapter; the server must be given it."""
    sections = dict(_sections(folder, json_))
    name, section = _chosen(sections, adapter, json_)
    trusted = _trust(folder, name, json_)
    uri = str(section.get("application_uri", "urn:flexrelay:gateway"))
    place = trusted.folder / "own" / "certificate.der"
    if place.exists() and not renew:
        fail(f"{place} is there already; --renew makes a new one, which servers must be given again", BAD_INPUT, json_)
    with explained(json_):
        own = trusted.make_own(uri, socket.gethostname())
    show(
        {"certificate": str(own.certificate), "key": str(own.key), "application_uri": uri},
        json_,
        lambda: out.print(f"{own.certificate}\nof {uri}: give it to the server", markup=False, soft_wrap=True),
    )


@app.command()
def browse(
    folder: Folder,
    adapter: Adapter = "",
    start: Annotated[str, typer.Option(metavar="NODE", help="Where to begin; the Objects folder without.")] = "i=85",
    json_: Json = False,
) -> None:
    """Objects of a server with numeric variables: what can be put into the configuration as devices."""
    from flexrelay_adapters.opcua import OpcuaAdapter

    org, name = _place(folder, adapter, json_)
    with explained(json_):
        section = dict(_sections(folder, json_))[name]
        made = load_adapter(org, name, {"type": "opcua", **section}, folder)
    assert isinstance(made, OpcuaAdapter)

    async def read() -> list[dict[str, Any]]:
        return [asdict(found) async for found in made.browse(start)]

    try:
        with explained(json_):
            found = asyncio.run(read())
    except ValueError as error:
        fail(str(error), BAD_INPUT, json_)

    def render() -> None:
        rows = [(f["path"], v["name"], v["unit"], v["node"]) for f in found for v in f["variables"]]
        table(f"variables of {made.endpoint}", ("object", "variable", "unit", "node"), rows)

    show(found, json_, render)


def _decide(folder: Path, thumbprint: str, adapter: str, json_: bool, what: str) -> None:
    trusted = _trust(folder, adapter, json_)
    try:
        _told(trusted.trust(thumbprint) if what == "trust" else trusted.reject(thumbprint), json_)
    except ValueError as error:
        fail(str(error), BAD_INPUT, json_)


def _told(known: "Known", json_: bool) -> None:
    text = f"{known.thumbprint[:16]} ({known.application_uri or known.subject}): {known.state}"
    show(_json(known), json_, lambda: out.print(text, markup=False, soft_wrap=True))


def _json(known: "Known") -> dict[str, Any]:
    return {**asdict(known), "valid_until": known.valid_until.isoformat()}


def _trust(folder: Path, adapter: str, json_: bool) -> "TrustList":
    try:
        from flexrelay_adapters.opcua.trust import TrustList
    except ModuleNotFoundError as error:
        fail(f"OPC UA is not installed ({error}): install flexrelay[opcua]", UNAVAILABLE, json_)
    sections = dict(_sections(folder, json_))
    places = {str(section.get("pki", "pki")) for section in sections.values()}
    if not adapter and len(places) == 1:
        return TrustList(folder / places.pop())
    return TrustList(folder / str(_chosen(sections, adapter, json_)[1].get("pki", "pki")))


def _place(folder: Path, adapter: str, json_: bool) -> tuple[str, str]:
    """(organisation, adapter's name)."""
    name, _ = _chosen(dict(_sections(folder, json_)), adapter, json_)
    with explained(json_):
        config = load(folder)
    return next(gateway.org for gateway in config.gateways if name in gateway.adapters), name


def _sections(folder: Path, json_: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    with explained(json_):
        config = load(folder)
    for gateway in config.gateways:
        for name, section in gateway.adapters.items():
            if section["type"] == "opcua":
                yield name, {key: value for key, value in section.items() if key != "type"}


def _chosen(sections: dict[str, dict[str, Any]], adapter: str, json_: bool) -> tuple[str, dict[str, Any]]:
    if not sections:
        fail('the configuration has no adapter of type "opcua"', BAD_INPUT, json_)
    if not adapter and len(sections) > 1:
        fail(f"there are {', '.join(sorted(sections))}: choose one with --adapter", BAD_INPUT, json_)
    name = adapter or next(iter(sections))
    if name not in sections:
        fail(f"there is no OPC UA adapter {name}; there are {', '.join(sorted(sections))}", BAD_INPUT, json_)
    return name, sections[name]
