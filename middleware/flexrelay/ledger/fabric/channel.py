"""One gRPC channel to one peer, with TLS. Certificates and keys are read again when their files change."""

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import grpc
import grpc.aio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from flexrelay.ledger.fabric import files
from flexrelay.ledger.fabric.errors import ProfileError
from flexrelay.ledger.fabric.messages import (
    DeliverResponse,
    EndorseResponse,
    Envelope,
    EvaluateResponse,
    SubmitResponse,
)
from flexrelay.ledger.fabric.profile import ClientTls, Peer

_LOG = logging.getLogger(__name__)
MAX_MESSAGE_BYTES: Final = 100 * 1024 * 1024
_OLD_CHANNEL_S: Final = 30.0

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Peers end the connection of a client that pings more than once a minute.
    ("grpc.keepalive_time_ms", 65_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
)

Unary = Callable[..., Any]


class PeerChannel:
    """The calls of one peer. Must be used from one event loop."""

    def __init__(self, peer: Peer, number: int, tls: ClientTls | None) -> None:
        self.org = peer.org
        self.address = peer.endpoint
        self._peer = peer
        self._field = f"peers.{number}.tls_ca ({peer.endpoint})"
        self._tls = tls
        self._watched = files.Watched([peer.tls_ca, *((tls.certificate, tls.key) if tls else ())])
        self._looked = time.monotonic()
        self._leaving: set[asyncio.Task[None]] = set()
        self._credentials = self._read()
        self._open()

    def _read(self) -> grpc.ChannelCredentials | None:
        """Raises ProfileError."""
        self.tls_hash = b""
        if not self._peer.tls_ca:
            if self._tls is not None:
                raise ProfileError(f"{self._field}: is empty, but the profile has client TLS; name the peer's TLS CA")
            return None
        authorities = files.read_file(self._peer.tls_ca, self._field)
        files.read_certificates(self._peer.tls_ca, self._field)
        if self._tls is None:
            return grpc.ssl_channel_credentials(authorities)
        certificate = files.read_certificate(self._tls.certificate, "tls.certificate")
        key = files.read_key(self._tls.key, "tls.key")
        public = certificate.public_key()
        if (
            not isinstance(public, ec.EllipticCurvePublicKey)
            or public.public_numbers() != key.public_key().public_numbers()
        ):
            raise ProfileError(f"tls: the certificate in {self._tls.certificate} is not for the key in {self._tls.key}")
        chain = files.read_file(self._tls.certificate, "tls.certificate")
        self.tls_hash = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
        return grpc.ssl_channel_credentials(authorities, files.read_file(self._tls.key, "tls.key"), chain)

    def _open(self) -> None:
        options: list[tuple[str, Any]] = list(_OPTIONS)
        if self._peer.server_name:
            options.append(("grpc.ssl_target_name_override", self._peer.server_name))
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self.address, options)
        else:
            self._channel = grpc.aio.secure_channel(self.address, self._credentials, options)
        self._evaluate = self._unary("/gateway.Gateway/Evaluate", EvaluateResponse)
        self._endorse = self._unary("/gateway.Gateway/Endorse", EndorseResponse)
        self._submit = self._unary("/gateway.Gateway/Submit", SubmitResponse)
        self._deliver: Any = self._channel.stream_stream(
            "/protos.Deliver/Deliver",
            request_serializer=Envelope.SerializeToString,
            response_deserializer=DeliverResponse.FromString,
        )

    def _unary(self, path: str, response: Any) -> Unary:
        call: Unary = self._channel.unary_unary(
            path, request_serializer=_serialize, response_deserializer=response.FromString
        )
        return call

    async def evaluate(self, request: Any, timeout_s: float) -> Any:
        self.renew()
        return await self._evaluate(request, timeout=timeout_s)

    async def endorse(self, request: Any, timeout_s: float) -> Any:
        self.renew()
        return await self._endorse(request, timeout=timeout_s)

    async def submit(self, request: Any, timeout_s: float) -> Any:
        self.renew()
        return await self._submit(request, timeout=timeout_s)

    def deliver(self) -> Any:
        """A stream of blocks; write one seek envelope to it."""
        self.renew()
        return self._deliver()

    def renew(self) -> bool:
        """Take new TLS files into use when they changed: new calls go over a new channel, running ones end on theirs.

        Files that do not fit together (yet: they may be replaced one after the other) are logged; the channel stays.
        """
        now = time.monotonic()
        if now - self._looked < files.LOOK_EVERY_S:
            return False
        self._looked = now
        if not self._watched.changed():
            return False
        before = self.tls_hash
        try:
            self._credentials = self._read()
        except ProfileError as error:
            self.tls_hash = before
            _LOG.error("the new TLS files for peer %s are not used: %s", self.address, error)
            return False
        old = self._channel
        self._open()
        task = asyncio.create_task(old.close(_OLD_CHANNEL_S), name=f"close-{self.address}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return True

    async def close(self) -> None:
        for task in self._leaving:
            task.cancel()
        await self._channel.close(None)


def _serialize(message: Any) -> bytes:
    data: bytes = message.SerializeToString()
    return data
