"""Packages are the same bytes wherever and whenever they are made."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

from flexrelay.network.package import connection, package, package_id

CONNECTION = connection("127.0.0.1:20000", b"root", b"certificate", b"key")


def unpack(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]  # files only


def test_the_id_is_the_same_on_every_machine() -> None:
    content = package("flexrelay_1", CONNECTION)
    assert package_id("flexrelay_1", content) == f"flexrelay_1:{hashlib.sha256(content).hexdigest()}"
    assert package_id("flexrelay_1", content) == (
        "flexrelay_1:655f815344f10af51543f574d3bf836eaf6cd6a6de3e6e41f3a61a78346bdf2a"
    )


def test_it_holds_what_a_peer_looks_for() -> None:
    outer = unpack(package("flexrelay_1", CONNECTION))
    assert json.loads(outer["metadata.json"]) == {"type": "ccaas", "label": "flexrelay_1", "path": ""}
    inner = json.loads(unpack(outer["code.tar.gz"])["connection.json"])
    assert inner["address"] == "127.0.0.1:20000"
    assert inner["tls_required"] is True
    assert inner["client_auth_required"] is True
    assert (inner["root_cert"], inner["client_cert"], inner["client_key"]) == ("root", "certificate", "key")


def test_another_address_or_label_is_another_package() -> None:
    other = connection("127.0.0.1:20001", b"root", b"certificate", b"key")
    contents = {package("a", CONNECTION), package("b", CONNECTION), package("a", other)}
    assert len(contents) == 3
