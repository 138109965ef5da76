"""`flexrelay device csr`, `certificate`, `claim-code`: what a device's own key is used for besides readings."""

from pathlib import Path
from typing import Annotated

import typer

from flexrelay.app import Level
from flexrelay.cli.folder import Folder, Org, on_site
from flexrelay.cli.output import Json, explained, out, show
from flexrelay.commissioning.certificates import bind_certificate, signing_request
from flexrelay.commissioning.devicekeys import claim_code_of
from flexrelay.identity.keyfile import write_private

Named = Annotated[str, typer.Argument(metavar="DEVICE", help="Its name or its DID.")]


def csr(
    folder: Folder,
    device: Named,
    to: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the request goes (PEM).")],
    key: Annotated[Path | None, typer.Option(help="The device's private key, when it is not in devices/.")] = None,
    common_name: Annotated[str, typer.Option(help="What the transport will show; the DID's last part without.")] = "",
    org: Org = "",
    json_: Json = False,
) -> None:
    """A certificate signing request of a device's own key, for an authority to sign."""
    request = on_site(folder, Level.READING, json_, lambda site: signing_request(site, device, org, key, common_name))
    with explained(json_):
        write_private(to, request, replace=True)
    show({"device": device, "request": str(to)}, json_, lambda: out.print(f"{to}", markup=False, soft_wrap=True))


def certificate(
    folder: Folder,
    device: Named,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The issued certificate, PEM or DER.")],
    protocol: Annotated[str, typer.Option(help="Where the device shows it, e.g. lwm2m or mqtt.")],
    authority: Annotated[Path | None, typer.Option("--ca", help="Whose certificate it must be issued by.")] = None,
    org: Org = "",
    json_: Json = False,
) -> None:
    """Bind the common name of a device's issued certificate to the device."""
    with explained(json_):
        data = file.read_bytes()
        issuer = None if authority is None else authority.read_bytes()
    bound = on_site(
        folder, Level.READING, json_, lambda site: bind_certificate(site, device, data, protocol, org, issuer)
    )
    told = [":".join(pair) for pair in bound.credentials]
    show(
        {"name": bound.name, "did": bound.did, "credentials": told},
        json_,
        lambda: out.print(f"{bound.name}: {', '.join(told) or 'known by its scid'}", markup=False, soft_wrap=True),
    )


def claim_code(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A device's key (PEM, public or private) or create operation.")
    ],
    json_: Json = False,
) -> None:
    """The claim code to print on a device."""
    with explained(json_):
        code = claim_code_of(file)
    show({"claim": code}, json_, lambda: out.print(code, markup=False))
