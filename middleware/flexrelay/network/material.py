"""An organisation's certificates and keys, in the folders that Fabric reads (MSP), made where they miss.

```
<org>/ca/            the roots, sign and tls, with their keys
<org>/msp/           what everybody knows of the organisation
<org>/<name>/msp     a node's or person's signing identity, <org>/<name>/tls.{pem,key} its TLS pair
<org>/gateways/      certificates issued for keys held elsewhere, and pairs of gateways without a wallet
```
"""

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from flexrelay.network.authority import Authority, Pair, Role, write_whole
from flexrelay.network.errors import NetworkError
from flexrelay_schemas.keys import public_key

LOOPBACK: Final = ("127.0.0.1", "localhost")
ADMIN: Final = "admin"
GATEWAY: Final = "gateway"

_NODE_OUS: Final = """NodeOUs:
  Enable: true
  ClientOUIdentifier:
    OrganizationalUnitIdentifier: client
  PeerOUIdentifier:
    OrganizationalUnitIdentifier: peer
  AdminOUIdentifier:
    OrganizationalUnitIdentifier: admin
  OrdererOUIdentifier:
    OrganizationalUnitIdentifier: orderer
"""


def dns_name(node: str) -> str:
    """A process' name as a host's."""
    return node.replace(".", "-").replace("_", "-").lower()


class Material:
    """The material of one organisation below `folder`."""

    def __init__(self, folder: Path, org: str) -> None:
        self.org = org
        self.folder = folder / org
        self.signing = Authority(self.folder / "ca", org, "sign")
        self.tls = Authority(self.folder / "ca", org, "tls")
        self.msp = self.folder / "msp"
        self._roots_into(self.msp)

    @property
    def tls_root(self) -> Path:
        """The file that every TLS certificate of the organisation is checked against."""
        return self.tls.pair.certificate

    @property
    def signing_root(self) -> Path:
        return self.signing.pair.certificate

    @property
    def admin_msp(self) -> Path:
        """The administrator's identity."""
        return self.identity(ADMIN, "admin")

    def identity(self, name: str, role: Role) -> Path:
        """The MSP folder of a node or person with a key of its own."""
        msp = self.folder / name / "msp"
        self._roots_into(msp)
        pair = Pair(msp / "signcerts" / "cert.pem", msp / "keystore" / "key.pem")
        self.signing.pair_for(pair, name, role)
        return msp

    def certificate_of(self, name: str) -> Path:
        """The signing certificate in `name`'s MSP folder."""
        return self.folder / name / "msp" / "signcerts" / "cert.pem"

    def tls_pair(self, name: str, role: Role) -> Pair:
        """A TLS pair that serves and dials, on loopback and under `name`, also as a host's."""
        pair = Pair(self.folder / name / "tls.pem", self.folder / name / "tls.key")
        return self.tls.pair_for(pair, name, role, hosts=dict.fromkeys((*LOOPBACK, name, dns_name(name))), tls=True)

    def gateway(self, name: str = GATEWAY) -> Pair:
        """A client's pair whose key is in a file here."""
        folder = self.folder / "gateways"
        return self.signing.pair_for(Pair(folder / f"{name}.pem", folder / f"{name}.key"), name, "client")

    def enrol(self, name: str, key: str | ec.EllipticCurvePublicKey) -> bytes:
        """A client certificate (PEM) for a public key (Multikey text or object) that is held elsewhere.

        It is also in `gateways/<name>.pem`. Raises NetworkError for a key that is not on P-256.
        """
        if isinstance(key, str):
            try:
                found = public_key(key)
            except ValueError as error:
                raise NetworkError(f"the key of {name}: {error}") from None
        else:
            found = key
        if not isinstance(found, ec.EllipticCurvePublicKey) or not isinstance(found.curve, ec.SECP256R1):
            raise NetworkError(f"the key of {name} is not on P-256; Fabric takes no other")
        certificate = self.signing.issue(name, found, "client")
        write_whole(self.folder / "gateways" / f"{name}.pem", certificate)
        return certificate

    def _roots_into(self, msp: Path) -> None:
        for path, content in (
            (msp / "cacerts" / "ca.pem", self.signing.certificate_pem),
            (msp / "tlscacerts" / "tls.pem", self.tls.certificate_pem),
            (msp / "config.yaml", _NODE_OUS.encode()),
        ):
            if not path.is_file():
                write_whole(path, content)
