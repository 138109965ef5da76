"""Hostile LwM2M peers in a process of their own: garbage, floods, replays, half bodies, half handshakes.

python -m support.lwm2m_hostile PORT DTLS_PORT COUNT SECONDS
"""

from __future__ import annotations

import random
import socket
import sys
import time

import cbor2

from flexrelay_adapters.lwm2m.coap.message import path_options, serialise, uint

from .lwm2m_devices import START, address


def main(port: int, secure_port: int, count: int, seconds: float) -> None:
    chance = random.Random(1)
    sockets = []
    for number in range(count):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.bind((address(number, 120), 0))
        sockets.append(sock)
    reading = cbor2.dumps([{-3: START, 0: "/3305/0/5800", 2: 1}])
    replayed = serialise(0, 2, 1, b"", [*path_options("/dp"), uint(12, 112)], reading)
    hello = bytes.fromhex("16feff0000000000000000") + (62).to_bytes(2, "big")
    body = bytes.fromhex("fefd") + bytes(32) + b"\0\0" + bytes.fromhex("0004 c0a8 00ff") + b"\x01\0" + bytes(8)
    hello += b"\x01" + (50).to_bytes(3, "big") + bytes(5) + (50).to_bytes(3, "big") + body.ljust(50, b"\0")
    until = time.monotonic() + seconds
    sent = mid = 0
    while time.monotonic() < until:
        for number, sock in enumerate(sockets):
            mid = mid + 1 & 0xFFFF
            kind = number % 7
            target = port
            if kind == 0:
                data = chance.randbytes(chance.randrange(1, 1200))
            elif kind == 1:
                data = serialise(0, 2, mid, b"", [*path_options("/dp"), uint(12, 112)], reading)
            elif kind == 2:
                data = replayed
            elif kind == 3:  # bodies that are never finished
                data = serialise(0, 2, mid, b"", [*path_options(f"/rd/{mid}"), uint(27, 0x0E)], bytes(1024))
            elif kind == 4:
                data = serialise(0, 2, mid, b"", [*path_options("/rd"), (15, b"ep=x%d" % mid)], b"</1/0>")
            elif kind == 5:  # a response that nobody has asked for
                data = serialise(0, 0x45, mid, b"12345678", [uint(6, mid), uint(12, 112)], reading)
            else:
                target = secure_port
                data = hello if mid & 1 else b"\x17\xfe\xfd\0\1" + chance.randbytes(60)
            try:
                sock.sendto(data, ("127.0.0.1", target))
                sent += 1
            except OSError:
                pass
        time.sleep(0.02)
    print(sent)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
