"""Chaincode packages of type `ccaas`: where the peer dials, and with what. The same input gives the same bytes, and so
the same package id, everywhere.

    python -m flexrelay_chaincode.package --label flexrelay_1 --address chaincode.dso.example:7052 \\
        --root-ca tls-ca.pem --client-certificate peer.pem --client-key peer-key.pem --out flexrelay.tar.gz

prints the package id, which goes into the chaincode's configuration as `id`.
"""

import argparse
import gzip
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_DIAL_TIMEOUT: Final = "10s"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """What the peer dials with (PEM): the chaincode's root certificate, the peer's certificate and key."""

    root_ca: str
    certificate: str
    key: str


def connection(address: str, tls: ClientTls | None = None, *, dial_timeout: str = _DIAL_TIMEOUT) -> bytes:
    """connection.json. `address` is host:port as the chaincode's certificate names it; without `tls` it is plain."""
    value: dict[str, object] = {"address": address, "dial_timeout": dial_timeout, "tls_required": tls is not None}
    if tls is not None:
        value |= {
            "client_auth_required": True,
            "client_key": tls.key,
            "client_cert": tls.certificate,
            "root_cert": tls.root_ca,
        }
    return _json(value)


def package(label: str, connection_json: bytes) -> bytes:
    """The package (tar.gz) that `peer lifecycle chaincode install` takes."""
    code = _archive({"connection.json": connection_json})
    return _archive({"metadata.json": _json({"label": label, "path": "", "type": "ccaas"}), "code.tar.gz": code})


def package_id(label: str, content: bytes) -> str:
    """How a peer names the installed package: label:sha256. The chaincode must register under exactly this."""
    return f"{label}:{hashlib.sha256(content).hexdigest()}"


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Stored, not compressed: compressors differ between zlib's versions."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)  # uid, gid and mtime are 0
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=0, mtime=0) as file:
        file.write(plain.getvalue())
    return packed.getvalue()


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flexrelay_chaincode.package", description="Make a ccaas package.")
    parser.add_argument("--label", required=True, help="e.g. flexrelay_1")
    parser.add_argument("--address", required=True, help="host:port where the peer finds the chaincode")
    parser.add_argument("--root-ca", type=Path, help="PEM: who signed the chaincode's certificate")
    parser.add_argument("--client-certificate", type=Path, help="PEM: the peer's certificate for dialling")
    parser.add_argument("--client-key", type=Path, help="PEM: its key; it goes into the package")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    files = (given.root_ca, given.client_certificate, given.client_key)
    if any(files) and not all(files):
        parser.error("--root-ca, --client-certificate and --client-key go together")
    try:
        tls = ClientTls(*(path.read_text(encoding="utf-8") for path in files)) if all(files) else None
        content = package(given.label, connection(given.address, tls))
        given.out.write_bytes(content)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    given.out.chmod(0o600 if tls else 0o644)
    print(package_id(given.label, content))
    return 0


if __name__ == "__main__":
    sys.exit(main())
