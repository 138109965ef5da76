"""Operations endpoints: whatever a process answers, or does not, its status can be told."""

import socket
import threading

import pytest

from flexrelay.network.health import Health, ask

HEIGHT = b'ledger_blockchain_height{channel="flex"} 7\n'


def answered(answer: bytes) -> Health:
    """What is made of an endpoint that gives these bytes to every request and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)

        def serve() -> None:
            for _ in range(2):
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(4096)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        return ask(server.getsockname()[1])


def test_heights_are_read() -> None:
    assert answered(b"HTTP/1.1 200 OK\r\n\r\n" + HEIGHT) == Health(True, {"flex": 7})


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n" + HEIGHT,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n" + HEIGHT,
        b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe" + HEIGHT,
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\n{",
    ],
)
def test_one_that_ends_in_mid_answer_is_not_healthy(answer: bytes) -> None:
    assert answered(answer) == Health(False)
