"""Kubernetes' own API server with etcd on loopback: it validates, defaults, admits and stores; nothing runs."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from flexrelay.network.waiting import until
from support.kubernetes_tools import server

TOKEN = "a-test"
_READY_S = 180.0


@dataclass(frozen=True)
class ApiServer:
    """`kubeconfig` is what Helm takes."""

    url: str
    kubeconfig: Path
    folder: Path

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any, list[str]]:
        """(status, answer, warnings)."""
        request = urllib.request.Request(self.url + path, method=method)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        request.add_header("Content-Type", "application/json")
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=30, context=self._trusting()) as answer:
                return answer.status, json.load(answer), answer.headers.get_all("Warning") or []
        except urllib.error.HTTPError as error:
            return error.code, json.load(error), error.headers.get_all("Warning") or []

    def ready(self) -> bool:
        request = urllib.request.Request(self.url + "/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
        try:
            urllib.request.urlopen(request, timeout=5, context=self._trusting()).close()
        except OSError:
            return False
        return True

    def _trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # it made its certificate itself a moment ago
        return context


@contextmanager
def api_server(folder: Path) -> Iterator[ApiServer]:
    """Runs for the block, empty at first; its output is in <folder>/*.log."""
    programs = server("etcd"), server("kube-apiserver")
    folder.mkdir(parents=True)
    client, peer, secure = _ports(3)
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "accounts.pem").write_bytes(key)
    (folder / "tokens.csv").write_text(f"{TOKEN},operator,operator,system:masters\n")
    etcd = [programs[0], "--data-dir", str(folder / "etcd"), "--log-level", "error", "--unsafe-no-fsync"]
    for what, port in (("client", client), ("peer", peer)):
        urls = f"http://127.0.0.1:{port}"
        listen = f"--listen-{what}-urls"
        advertise = "--advertise-client-urls" if what == "client" else "--initial-advertise-peer-urls"
        etcd += [listen, urls, advertise, urls]
    etcd += ["--initial-cluster", f"default=http://127.0.0.1:{peer}"]
    kube = [
        *(programs[1], f"--etcd-servers=http://127.0.0.1:{client}", "--bind-address=127.0.0.1"),
        *(f"--secure-port={secure}", f"--cert-dir={folder / 'certificates'}", "--authorization-mode=RBAC"),
        *(f"--token-auth-file={folder / 'tokens.csv'}", "--service-cluster-ip-range=10.0.0.0/16"),
        *("--service-account-issuer=https://test.invalid", f"--service-account-key-file={folder / 'accounts.pem'}"),
        *(f"--service-account-signing-key-file={folder / 'accounts.pem'}", "--endpoint-reconciler-type=none"),
    ]
    cluster = {"server": f"https://127.0.0.1:{secure}", "insecure-skip-tls-verify": True}
    names = {"cluster": "test", "user": "test"}
    (folder / "kubeconfig").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "test", "user": {"token": TOKEN}}],
                "contexts": [{"name": "test", "context": names}],
                "current-context": "test",
            }
        )
    )
    (folder / "kubeconfig").chmod(0o600)
    running = ApiServer(f"https://127.0.0.1:{secure}", folder / "kubeconfig", folder)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, command in (("etcd", etcd), ("kube-apiserver", kube)):
            with (folder / f"{name}.log").open("wb") as log:
                processes.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=log))
        until(running.ready, f"the API server is not ready, see {folder}", _READY_S)
        yield running
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ports(count: int) -> list[int]:
    """Free now; whoever takes them first has them."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return found
