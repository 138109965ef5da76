"""Configuration, package, TLS and the process itself."""

import asyncio
import datetime
import io
import json
import signal
import sys
import tarfile
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from unit.chaincode.network import PACKAGE, config, failure
from unit.chaincode.peer import Client, PeerDouble

from flexrelay_chaincode.config import ConfigError, load
from flexrelay_chaincode.health import respond
from flexrelay_chaincode.package import ClientTls, connection, main, package, package_id
from flexrelay_chaincode.server import ChaincodeServer
from flexrelay_chaincode.wire import Announced, read_announced
from flexrelay_contracts.invocation import query_args

TEMPLATES = Path(__file__).parents[3] / "chaincode" / "package"
MINIMAL = f'id = "{PACKAGE}"\norg = "dso"\nlisten = "127.0.0.1:0"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "id"),
        ("x", "not TOML"),
        (MINIMAL.replace(PACKAGE, "flexrelay_1:xyz"), "id"),
        (MINIMAL + "colections = {}\n", "colections"),
        (MINIMAL.replace("127.0.0.1", "0.0.0.0"), "not on loopback"),
        (MINIMAL + 'tls_key = "k.pem"\n', "missing: tls_certificate, client_ca"),
        (MINIMAL + 'name = "a"\nforward_to = "a"\n', "forward_to names this chaincode itself"),
        (MINIMAL + "guard_ms = 5.5\n", "guard_ms"),
    ],
)
def test_a_bad_configuration_names_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "chaincode.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_a_missing_file_and_a_missing_contract_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="no module with TRANSACTIONS and QUERIES"):
        ChaincodeServer(config(contract="flexrelay_contracts.refusal"))


async def test_a_port_in_use_is_told() -> None:
    async with ChaincodeServer(config()) as server:
        with pytest.raises(ConfigError, match="cannot listen on"):
            await ChaincodeServer(config(listen=server.address)).__aenter__()


def test_the_sample_configuration_is_good() -> None:
    found = load(TEMPLATES / "chaincode.toml")
    assert (found.org, found.tls_key) == ("dso", str(TEMPLATES / "tls/chaincode-key.pem"))


def test_a_package_is_the_same_every_time_and_what_the_templates_show() -> None:
    tls = ClientTls("root", "certificate", "key")
    content = package("flexrelay_1", connection("chaincode.dso.example:7052", tls))
    assert content == package("flexrelay_1", connection("chaincode.dso.example:7052", tls))
    assert package_id("flexrelay_1", content) == (
        "flexrelay_1:af233ad28191f21035db8d41edb23400f5b677f7342568a282370ed75acbd3e6"
    )
    outer = _files(content)
    assert json.loads(outer["metadata.json"]) == json.loads((TEMPLATES / "metadata.json").read_text())
    inner = json.loads(_files(outer["code.tar.gz"])["connection.json"])
    template = json.loads((TEMPLATES / "connection.json").read_text(encoding="utf-8"))
    assert inner == template | {"root_cert": "root", "client_cert": "certificate", "client_key": "key"}
    assert json.loads(connection("a:1"))["tls_required"] is False


def _files(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        entries = archive.getmembers()
        assert {(entry.uid, entry.gid, entry.mtime, entry.uname) for entry in entries} == {(0, 0, 0, "")}
        return {entry.name: archive.extractfile(entry).read() for entry in entries}  # type: ignore[union-attr]


def test_an_id_that_is_not_the_packages_is_told_at_start(tmp_path: Path) -> None:
    content = package("flexrelay_1", connection("a:1"))
    (tmp_path / "p.tar.gz").write_bytes(content)
    path = tmp_path / "chaincode.toml"
    path.write_text(MINIMAL + 'package = "p.tar.gz"\n')
    right = package_id("flexrelay_1", content)
    with pytest.raises(ConfigError, match=f"id: {PACKAGE} is not the id of .*; write {right}"):
        load(path)
    path.write_text(MINIMAL.replace(PACKAGE, right) + 'package = "p.tar.gz"\n')
    assert load(path).id == right
    path.write_text(MINIMAL + 'package = "q.tar.gz"\n')
    with pytest.raises(ConfigError, match=r"package: .* cannot be read"):
        load(path)


def test_the_package_command_prints_the_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.tar.gz"
    assert main(["--label", "a_1", "--address", "127.0.0.1:1", "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == package_id("a_1", out.read_bytes())


def test_ready_of_each_version() -> None:
    assert read_announced(b"") == Announced(0, 0)
    assert read_announced(b"\x08\x01\x10\xe8\x07\x18\x01\x20\xe8\x07") == Announced(1000, 1000)
    assert read_announced(b"\x10\xe8\x07\x20\xe8\x07") == Announced(0, 0)  # sizes without the word to use them
    assert read_announced(b"\x08\x01\x10\x05\x2a\x02ab\x31" + b"\x00" * 8 + b"\x3d\x00\x00\x00\x00") == Announced(5, 0)
    for broken in (b"\x08", b"\x10" + b"\xff" * 11, b"\x0b", b"\x2a\x05a"):
        with pytest.raises(ValueError, match="READY"):
            read_announced(broken)


class _Watched:
    healthy = False

    def text(self) -> str:
        return "metrics\n"


def test_health_answers() -> None:
    watched = _Watched()
    assert respond(b"GET /healthz HTTP/1.1\r\n", watched)[0].startswith("503")
    assert respond(b"GET /metrics?x=1 HTTP/1.1\r\n", watched) == ("200 OK", "metrics\n")
    assert respond(b"GET / HTTP/1.1\r\n", watched)[0].startswith("404")
    assert respond(b"\x16\x03\x01\r\n", watched)[0].startswith("405")


class _Pki:
    """A root and what it signs, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
        root = self._sign(self._name, self._key.public_key(), 1, x509.BasicConstraints(ca=True, path_length=0))
        (folder / "root.pem").write_bytes(root)

    def issue(self, name: str, days: float = 1) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key(), days, x509.BasicConstraints(ca=False, path_length=None))
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        (self.folder / f"{name}.pem").write_bytes(certificate)
        (self.folder / f"{name}.key").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))

    def _sign(self, subject: x509.Name, key: Any, days: float, constraints: x509.BasicConstraints) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=2))
        builder = builder.not_valid_after(now + datetime.timedelta(days=days)).add_extension(names, critical=False)
        signed = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)


def _tls(folder: Path, **changes: str) -> dict[str, str]:
    given = {"tls_certificate": "server.pem", "tls_key": "server.key", "client_ca": "root.pem"} | changes
    return {name: str(folder / value) for name, value in given.items()}


class _TlsPeer(PeerDouble):
    credentials: grpc.ChannelCredentials

    async def _dial(self, options: Any) -> grpc.aio.Channel:
        options = [*options, ("grpc.ssl_target_name_override", "localhost")]
        return grpc.aio.secure_channel(self.address, self.credentials, options=options)


async def test_tls_both_ways(tmp_path: Path) -> None:
    pki = _Pki(tmp_path)
    for name in ("server", "peer"):
        pki.issue(name)
    root = (tmp_path / "root.pem").read_bytes()
    async with ChaincodeServer(config(**_tls(tmp_path))) as server:
        peer = _TlsPeer(server.address)
        peer.credentials = grpc.ssl_channel_credentials(
            root, (tmp_path / "peer.key").read_bytes(), (tmp_path / "peer.pem").read_bytes()
        )
        async with peer:
            result = await peer.call(query_args("probe.nothing", {}), client=Client.new())
            assert failure(result) == ("refused", "unknown_function")
        stranger = _TlsPeer(server.address)
        stranger.credentials = grpc.ssl_channel_credentials(root)
        with pytest.raises(grpc.aio.AioRpcError):
            await stranger.__aenter__()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"tls_certificate": "old.pem", "tls_key": "old.key"}, "expired"),
        ({"tls_key": "other.key"}, "is not the key of"),
        ({"tls_key": "none.key"}, "cannot be read"),
        ({"tls_key": "root.pem"}, "holds no PEM private key"),
        ({"client_ca": "server.key"}, "holds no PEM certificate"),
        ({"tls_certificate": "server.key"}, "holds no PEM certificate"),
    ],
)
def test_bad_certificates_are_told_before_anything_listens(tmp_path: Path, files: dict[str, str], said: str) -> None:
    pki = _Pki(tmp_path)
    pki.issue("server")
    pki.issue("other")
    pki.issue("old", days=-1)
    with pytest.raises(ConfigError, match=said):
        ChaincodeServer(config(**_tls(tmp_path, **files)))


async def test_the_process_serves_tells_its_health_and_ends_on_sigterm(
    tmp_path: Path, unused_tcp_port_factory: Any
) -> None:
    port, health = unused_tcp_port_factory(), unused_tcp_port_factory()
    path = tmp_path / "chaincode.toml"
    path.write_text(MINIMAL.replace(".1:0", f".1:{port}") + f'health = "127.0.0.1:{health}"\n')
    command = [sys.executable, "-m", "flexrelay_chaincode", "--config", str(path)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    try:
        for _ in range(2_000):
            try:
                assert await asyncio.to_thread(_fetch, health, "healthz") == "ok\n"
                break
            except OSError:
                await asyncio.sleep(0.05)
        async with PeerDouble(f"127.0.0.1:{port}") as peer:
            result = await peer.call(query_args("no.such", {}), client=Client.new())
            assert failure(result) == ("refused", "unknown_function")
            async with asyncio.timeout(60):  # a call is counted after its answer is sent
                text = ""
                while 'flexrelay_chaincode_calls_total{outcome="refused"} 1' not in text:
                    text = await asyncio.to_thread(_fetch, health, "metrics")
            assert "flexrelay_chaincode_streams_ready 1" in text
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), 60) == 0
        assert process.stderr is not None
        lines = [json.loads(line) for line in (await process.stderr.read()).splitlines()]
        assert any(line["event"].startswith("listening on") for line in lines)
    finally:
        if process.returncode is None:
            process.kill()


def _fetch(port: int, name: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=60) as answer:
        text: str = answer.read().decode()
        return text


async def test_a_process_with_a_bad_configuration_ends_with_a_message(tmp_path: Path) -> None:
    path = tmp_path / "chaincode.toml"
    path.write_text(MINIMAL + 'contract = "nowhere"\n')
    command = [sys.executable, "-m", "flexrelay_chaincode", "--config", str(path)]
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert said.decode().startswith("error: contract: nowhere")


def test_the_image_runs_this_package() -> None:
    text = (TEMPLATES / "Containerfile").read_text()
    assert '"-m", "flexrelay_chaincode"' in text
    assert tomllib.loads((TEMPLATES / "chaincode.toml").read_text())["health"].endswith(":9100")
