"""Chaincode packages (ccaas): an address and certificates, with the same bytes, and so the same id, every time."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from typing import Final

_DIAL_TIMEOUT: Final = "5s"


def connection(address: str, root: bytes, certificate: bytes, key: bytes) -> bytes:
    """The connection.json of a chaincode server with TLS both ways; PEM."""
    return _json(
        {
            "address": address,
            "dial_timeout": _DIAL_TIMEOUT,
            "tls_required": True,
            "client_auth_required": True,
            "client_key": key.decode(),
            "client_cert": certificate.decode(),
            "root_cert": root.decode(),
        }
    )


def package(label: str, connection_json: bytes) -> bytes:
    """The package (tar.gz) with this label."""
    code = _archive({"connection.json": connection_json})
    return _archive({"metadata.json": _json({"label": label, "path": "", "type": "ccaas"}), "code.tar.gz": code})


def package_id(label: str, content: bytes) -> str:
    """How peers name an installed package: label:sha256. A chaincode must register under exactly this id."""
    return f"{label}:{hashlib.sha256(content).hexdigest()}"


def _archive(files: Mapping[str, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)  # no owner, no times: nothing of the machine that packed it
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=0, mtime=0) as file:
        file.write(plain.getvalue())
    return packed.getvalue()


def _json(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
