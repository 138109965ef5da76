"""From LwM2M devices to the journal: CoAP → registered, identified → decoded, validated → journalled → acknowledged.

A thousand clients of another process, each with an address of its own and one message under way, keep the gateway busy;
what is counted is the CPU time of the gateway's one process. The bare server does nothing but parse the same messages,
read their CBOR and answer. The Leshan server (Java), where it is built (scripts/leshan.sh, or a folder named by
FLEXRELAY_LESHAN), takes the same messages and keeps nothing.
"""

import asyncio
import json
import os
import resource
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import cbor2
from OpenSSL import SSL

from flexrelay.bench import Result
from flexrelay.ingest import Enrolment, Ingest, NoHistory, RegisterChecks, Registry
from flexrelay.journal import SqliteJournal
from flexrelay_adapters.lwm2m import Lwm2mAdapter, Lwm2mConfig
from flexrelay_adapters.lwm2m.coap import codes
from flexrelay_adapters.lwm2m.coap.message import Message, parse, path_options, serialise, uint
from flexrelay_adapters.lwm2m.coap.udp import UdpEndpoint
from flexrelay_adapters.lwm2m.dtls.context import client_context
from flexrelay_adapters.lwm2m.dtls.session import Session
from flexrelay_schemas.did import Create, key_hash

NETWORK: Final = "bench"
START: Final = 1_700_000_000
CLIENTS: Final = 1_000
SESSIONS: Final = 200
MESSAGES: Final = 30_000
SECURE: Final = 15_000
ROUNDS: Final = 2
UNIT: Final = "requests/CPU-s"
_KEY: Final = bytes(range(16))
_PUBLIC: Final = "z" + "2" * 48

Exchange = Callable[[bytes], None]


def run() -> list[Result]:
    """lwm2m_send, lwm2m_notify, lwm2m_update, lwm2m_dtls (ratio to plain); the best of a few rounds. Where Leshan is
    built, leshan_send and lwm2m_send_to_leshan (lwm2m_send with the ratio to it), too."""
    bare = max(_measure("bare", MESSAGES) for _ in range(ROUNDS))
    send = max(_measure("send", MESSAGES) for _ in range(ROUNDS))
    notify = max(_measure("notify", MESSAGES) for _ in range(ROUNDS))
    update = max(_measure("update", MESSAGES) for _ in range(ROUNDS))
    plain = max(_measure("few", SECURE) for _ in range(ROUNDS))
    secure = max(_measure("dtls", SECURE) for _ in range(ROUNDS))
    leshan = _leshan(MESSAGES) if _leshan_home() is not None else 0.0
    against = "parsing the messages, their CBOR, and answering"
    results: list[Result] = [
        _result("bare_coap", bare, 0.0, ""),
        _result("lwm2m_send", send, send / bare, against),
        _result("lwm2m_notify", notify, notify / bare, against),
        _result("lwm2m_update", update, update / bare, against),
        _result("lwm2m_dtls", secure, secure / plain, "the same without DTLS"),
    ]
    if leshan:
        results.append(_result("leshan_send", leshan, leshan / bare, against))
        results.append(_result("lwm2m_send_to_leshan", send, send / leshan, "leshan_send: the same load, nothing kept"))
    return results


def _result(name: str, value: float, ratio: float, against: str) -> Result:
    return {"name": name, "value": value, "unit": UNIT, "ratio": ratio, "against": against}


def _leshan_home() -> Path | None:
    home = Path(os.environ.get("FLEXRELAY_LESHAN", ".cache/leshan"))
    return home if (home / "stamp").is_file() and shutil.which("java") else None


def _leshan(count: int) -> float:
    """Sends per CPU-second of a Leshan server that is warm."""
    home = _leshan_home()
    assert home is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = ["java", "-Xmx2g", "-cp", f"{home}/classes:{home}/lib/*", "Gateway", f"port={port}", "quiet=yes"]
    server = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert server.stdout is not None
    try:
        if server.stdout.readline().strip() != "started":
            raise RuntimeError("the Leshan server did not start")
        _load_in_process("leshan", count, str(port))
        before = _cpu_of(server.pid)
        _load_in_process("leshan", count, str(port))
        return count / (_cpu_of(server.pid) - before)
    finally:
        server.kill()
        server.wait()


def _cpu_of(pid: int) -> float:
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _load_in_process(what: str, count: int, port: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "flexrelay.bench.lwm2m", "load", what, str(count), port], check=True, timeout=300
    )


def _measure(what: str, count: int) -> float:
    """Messages per CPU-second of the serving process."""
    with tempfile.TemporaryDirectory(prefix="flexrelay-bench-") as folder:
        server = subprocess.Popen(
            [sys.executable, "-m", "flexrelay.bench.lwm2m", "serve", what, str(count), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None and server.stdin is not None
        try:
            port = server.stdout.readline().strip()
            _load_in_process(what, count, port)
            server.stdin.close()
            result = json.loads(server.stdout.readline())
            server.wait(30)
        finally:
            if server.poll() is None:
                server.kill()
                server.wait()
    if result["stored"] < count and what not in ("bare", "update"):
        raise AssertionError(f"{what}: {result['stored']} of {count} stored")
    return count / float(result["seconds"])


def _dids(count: int) -> list[str]:
    return [
        Create(network=NETWORK, kind="device", key=_PUBLIC, next_key_hash=key_hash("-"), nonce=f"{number:032x}").did()
        for number in range(count)
    ]


def _address(number: int) -> str:
    return f"127.1.{number // 250}.{number % 250 + 1}"


def _registry(count: int) -> Registry:
    """Devices known by their addresses and by their PSK identities."""
    registry = Registry(NETWORK, "bench")
    for number, did in enumerate(_dids(count)):
        registry.apply("identity.registered", {"did": did, "kind": "device", "key": _PUBLIC, "version": 1})
        credentials = (("lwm2m", f"udp:{_address(number)}"), ("lwm2m", f"meter-{number}"))
        registry.enrol(Enrolment(did, credentials, unsigned=True))
    return registry


# The gateway


async def _serve(what: str, count: int, folder: Path) -> None:
    if what == "bare":
        await _serve_bare()
        return
    registry = _registry(CLIENTS)
    section = {"coap": {"port": 0}, "state": folder / "registrations.db", "nameplate": False, "rate": 1e5, "burst": 1e5}
    if what == "dtls":
        keys = "".join(f"meter-{number}:{_KEY.hex()}\n" for number in range(CLIENTS))
        (folder / "keys").write_text(keys)
        section |= {"coaps": {"port": 0, "psk_file": folder / "keys"}}
    section["observe"] = ("/3305/0",) if what == "notify" else ()
    adapter = Lwm2mAdapter(Lwm2mConfig.from_section("bench", section))
    async with SqliteJournal(folder / "journal.db") as journal:
        ingest = Ingest(registry, journal, RegisterChecks(NoHistory(), journal.traces), lambda: (START + 10**6) * 1000)
        running = asyncio.create_task(adapter.run(ingest))
        await asyncio.wait({running, asyncio.ensure_future(adapter.wait_connected())}, return_when="FIRST_COMPLETED")
        if running.done():
            running.result()
        print(adapter.coaps_port if what == "dtls" else adapter.coap_port, flush=True)
        # registering is not measured: the clock starts with the first message after it
        clients = SESSIONS if what in ("dtls", "few") else CLIENTS
        while len(adapter.registrations) < clients:  # noqa: ASYNC110  # it is the adapter's state
            await asyncio.sleep(0.005)
        begin = time.process_time()
        await asyncio.to_thread(sys.stdin.read)
        seconds = time.process_time() - begin
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await ingest.close()
        await journal.verify()
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        batches = adapter.stats.batches
        print(
            json.dumps({"seconds": seconds, "stored": ingest.outcomes["stored"], "rss_mb": rss, "batches": batches}),
            flush=True,
        )
        print(
            f"{what}: {dict(ingest.outcomes)} {batches} batches, RSS {rss:.0f} MB, {adapter.layer.counts}",
            file=sys.stderr,
        )


async def _serve_bare() -> None:
    def answer(address: tuple[str, int], data: bytes) -> None:
        message = parse(data)
        code, options = codes.CHANGED, []
        if message.path() == ("rd",):
            code, options = codes.CREATED, [(codes.LOCATION_PATH, b"rd"), (codes.LOCATION_PATH, b"x")]
        elif message.payload:
            cbor2.loads(message.payload)
        endpoint.send(address, serialise(codes.ACK, code, message.mid, message.token, options))

    endpoint = UdpEndpoint.open("127.0.0.1", 0, answer)
    print(endpoint.address[1], flush=True)
    begin = time.process_time()
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps({"seconds": time.process_time() - begin, "stored": 0}), flush=True)
    endpoint.close()


# The devices


class _Client:
    """One device: a socket, perhaps a session on it, and one message under way."""

    def __init__(self, number: int, port: int, what: str) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((_address(number), 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.number = number
        self.location = b""
        self.token = b""
        self.left = 0
        self.sent_at = float("inf")
        self.mid = 0
        self._last = b""
        self._what = what
        self._session: Session | None = None
        if what == "dtls":
            self._context, self._kept = client_context(f"meter-{number}", _KEY)
            connection = SSL.Connection(self._context, None)
            connection.set_ciphertext_mtu(1280)
            connection.set_connect_state()
            self._session = Session(connection, ("", 0), self._raw, credential="server")

    def start(self) -> None:
        if self._session is not None:
            self._session.feed(b"")
        else:
            self._register()

    def _raw(self, data: bytes) -> None:
        self.socket.send(data)

    def _out(self, data: bytes) -> None:
        if self._session is not None:
            self._session.send(data)
        else:
            self.socket.send(data)

    def _next_mid(self) -> int:
        self.mid = self.mid + 1 & 0xFFFF
        return self.mid

    def _register(self) -> None:
        options = [*path_options("/rd"), (codes.URI_QUERY, b"ep=m%d" % self.number), (codes.URI_QUERY, b"lwm2m=1.1")]
        body = b"</1/0>,</3/0>,</3305/0>,</3316/0>,</3317/0>,</3318/0>,</3329/0>,</3411/0>"
        self._out(serialise(codes.CON, codes.POST, self._next_mid(), b"r", options, body))

    def messages(self) -> Iterator[Message]:
        """What has come."""
        try:
            data = self.socket.recv(4096)
        except BlockingIOError:
            return
        if self._session is None:
            yield parse(data)
            return
        waiting = self._session.peer is None
        for each in self._session.feed(data):
            yield parse(each)
        if waiting and self._session.peer is not None:
            self._register()

    def next(self) -> None:
        """Send the next message."""
        self.left -= 1
        mid = self._next_mid()
        if self._what == "update":
            data = serialise(
                codes.CON, codes.POST, mid, b"u", [(codes.URI_PATH, b"rd"), (codes.URI_PATH, self.location)]
            )
        elif self._what == "notify":
            options = [uint(codes.OBSERVE, self.left), uint(codes.CONTENT_FORMAT, codes.SENML_CBOR)]
            pack = [{0: "/3305/0/5800", 2: 1000.5 + self.left, 6: START + 10**5 - self.left}]
            data = serialise(codes.CON, codes.CONTENT, mid, self.token, options, cbor2.dumps(pack))
        else:
            options = [*path_options("/dp"), uint(codes.CONTENT_FORMAT, codes.SENML_CBOR)]
            data = serialise(codes.CON, codes.POST, mid, b"d", options, self._pack())
        self._last = data
        self.sent_at = time.monotonic()
        self._out(data)

    def again(self) -> None:
        """A datagram was lost: the same message once more."""
        self.sent_at = time.monotonic()
        self._out(self._last)

    def _pack(self) -> bytes:
        """Ten records of one instant: what a meter shows."""
        at, energy = START + 10**5 - self.left, float(1_000_000 - self.left)
        return cbor2.dumps(
            [
                {-2: "/", -3: at, 0: "3305/0/5800", 2: 1234.5},
                {0: "3305/0/5810", 2: 12.25},
                {0: "3305/0/5805", 2: energy},
                {0: "3305/0/5820", 2: 0.98},
                {0: "3316/0/5700", 2: 230.1},
                {0: "3317/0/5700", 2: 5.36},
                {0: "3318/0/5700", 2: 50.01},
                {0: "3329/0/5700", 2: 0.98},
                {0: "3411/0/1", 2: 55},
                {0: "3411/0/3", 2: 48.5},
            ]
        )


def _load(what: str, count: int, port: int) -> None:
    clients = [_Client(number, port, what) for number in range(SESSIONS if what in ("dtls", "few") else CLIENTS)]
    waiting = selectors.DefaultSelector()
    for client in clients:
        client.left = count // len(clients)
        waiting.register(client.socket, selectors.EVENT_READ, client)
    ready = 0
    for first in range(0, len(clients), 50):
        for client in clients[first : first + 50]:
            client.start()
        until = time.monotonic() + 30
        while ready < min(first + 50, len(clients)) and time.monotonic() < until:
            for key, _ in waiting.select(1):
                ready += _prepare(key.data, what)
    if ready < len(clients):
        raise AssertionError(f"{ready} of {len(clients)} clients are ready")
    time.sleep(0.3)
    for client in clients:
        client.next()
    left = len(clients)
    heard = looked = time.monotonic()
    while left:
        events = waiting.select(0.5)
        now = time.monotonic()
        for key, _ in events:
            client = key.data
            for message in client.messages():
                if message.kind != codes.ACK or message.mid != client.mid:
                    continue  # a duplicate, or a question
                if message.code not in (codes.CHANGED, codes.EMPTY):
                    raise AssertionError(f"answered {message}")
                heard = now
                if client.left:
                    client.next()
                else:
                    client.sent_at = float("inf")
                    left -= 1
        if now - looked > 1:
            looked = now
            for client in clients:
                if now - client.sent_at > 2:
                    client.again()
        if now - heard > 20:
            raise AssertionError(f"{left} clients wait for an answer")


def _prepare(client: _Client, what: str) -> int:
    """Take what comes while registering; 1 when the client is ready."""
    done = 0
    for message in client.messages():
        if message.code == codes.CREATED:
            client.location = [value for number, value in message.options if number == codes.LOCATION_PATH][1]
            done += what != "notify" or bool(client.token)
        elif message.code == codes.GET and message.option(codes.OBSERVE) is None:  # its device object: it tells nothing
            client._out(serialise(codes.ACK, codes.NOT_FOUND, message.mid, message.token, ()))
        elif message.code == codes.GET:
            client.token = message.token
            options = [uint(codes.OBSERVE, 1), uint(codes.CONTENT_FORMAT, codes.SENML_CBOR)]
            pack = cbor2.dumps([{0: "/3305/0/5800", 2: 1, 6: START}])
            client._out(serialise(codes.ACK, codes.CONTENT, message.mid, message.token, options, pack))
            done += bool(client.location)
    return done


def _main(role: str, what: str, count: str, last: str) -> None:
    if role == "serve":
        asyncio.run(_serve(what, int(count), Path(last)))
    else:
        _load(what, int(count), int(last))


if __name__ == "__main__":
    _main(*sys.argv[1:])
