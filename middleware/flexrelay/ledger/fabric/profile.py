"""The connection profile: everything that a gateway must know about a Fabric network, in one TOML file.

Paths are relative to the profile's own folder. Private keys are never part of it, only paths to them.
"""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from flexrelay.ledger.fabric.errors import ProfileError
from flexrelay_schemas.model import Items, Model
from flexrelay_sdk.config import problems

_ENDPOINT = re.compile(r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})$")

Name = Annotated[str, Field(min_length=1, max_length=200)]


class IdentityFiles(Model):
    """The gateway's certificate (PEM) and its key; no key when a signer holds it."""

    certificate: Name
    key: str = ""


class Peer(Model):
    """A peer's gateway service. `server_name` is the name in its TLS certificate, when it is not the endpoint's."""

    org: Name
    endpoint: Name
    server_name: str = ""
    tls_ca: str = ""

    @model_validator(mode="after")
    def _checked(self) -> "Peer":
        found = _ENDPOINT.match(self.endpoint)
        if found is None or not 0 < int(found[2]) < 65536:
            raise ValueError(f"endpoint {self.endpoint!r} is not host:port")
        return self


class ClientTls(Model):
    """What the client shows to peers that ask for a certificate."""

    certificate: Name
    key: Name


class Organisation(Model):
    """An organisation whose signatures are believed. `ca`: a PEM file with its root and intermediate certificates."""

    msp: Name
    kind: Literal["peer", "orderer"]
    ca: Name


class Profile(Model):
    """See the module's text. `org` is the gateway's own organisation; its peers come first in `peers`."""

    v: Literal[1] = 1
    channel: Name
    chaincode: Name
    chaincode_version: str = ""
    org: Name
    entries: dict[str, str] = Field(default_factory=dict)
    identity: IdentityFiles
    peers: Items[Peer]
    tls: ClientTls | None = None
    organisations: Items[Organisation]

    @model_validator(mode="after")
    def _consistent(self) -> "Profile":
        if not any(peer.org == self.org for peer in self.peers):
            raise ValueError(f"peers: none belongs to the organisation {self.org!r} of `org`; name one of its peers")
        owners: dict[str, str] = {}
        for number, peer in enumerate(self.peers):
            if peer.endpoint in owners:
                raise ValueError(f"peers.{number}: {peer.endpoint} stands twice ({owners[peer.endpoint]}, {peer.org})")
            owners[peer.endpoint] = peer.org
        known = {organisation.msp for organisation in self.organisations if organisation.kind == "peer"}
        for org in sorted({self.org, *(peer.org for peer in self.peers)} - known):
            raise ValueError(f'organisations: {org!r} is named in the profile but has no entry with kind = "peer"')
        if not any(organisation.kind == "orderer" for organisation in self.organisations):
            raise ValueError('organisations: no entry with kind = "orderer"; without it no block can be verified')
        return self

    @property
    def own_peers(self) -> tuple[Peer, ...]:
        return tuple(peer for peer in self.peers if peer.org == self.org)

    @property
    def chaincodes(self) -> tuple[str, ...]:
        """The base chaincode and every entry, each once."""
        return tuple(dict.fromkeys((self.chaincode, *self.entries.values())))

    def entry_of(self, function: str) -> str:
        """The chaincode through which a function ("contract.name") enters."""
        return self.entries.get(function.partition(".")[0], self.chaincode)


def load_profile(path: Path) -> Profile:
    """Read a profile and make its paths absolute. Raises ProfileError."""
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise ProfileError(f"connection profile {path}: cannot be read ({error.strerror}); check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"connection profile {path}: is not TOML: {error}") from None
    try:
        profile = Profile.model_validate(document)
    except ValidationError as error:
        raise ProfileError(f"connection profile {path}: {'; '.join(problems(error))}") from None
    return _absolute(profile, path.resolve().parent)


def _absolute(profile: Profile, folder: Path) -> Profile:
    def place(path: str) -> str:
        return str(folder / path) if path else ""

    changes: dict[str, Any] = {
        "identity": profile.identity.model_copy(
            update={"certificate": place(profile.identity.certificate), "key": place(profile.identity.key)}
        ),
        "peers": tuple(peer.model_copy(update={"tls_ca": place(peer.tls_ca)}) for peer in profile.peers),
        "organisations": tuple(item.model_copy(update={"ca": place(item.ca)}) for item in profile.organisations),
    }
    if profile.tls is not None:
        changes["tls"] = profile.tls.model_copy(
            update={"certificate": place(profile.tls.certificate), "key": place(profile.tls.key)}
        )
    return profile.model_copy(update=changes)
