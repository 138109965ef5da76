"""The connections to one peer, with TLS: gRPC's own for the stream of blocks, a lighter one for the many small calls.
Certificates and keys are read again when their files change."""

import asyncio
import hashlib
import logging
import ssl
import time
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
    ProposalResponse,
    SubmitResponse,
)
from flexrelay.ledger.fabric.profile import ClientTls, Peer
from flexrelay.ledger.fabric.rpc import Caller

_LOG = logging.getLogger(__name__)
MAX_MESSAGE_BYTES: Final = 100 * 1024 * 1024
_OLD_CHANNEL_S: Final = 30.0

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Peers end the connection of a client that pings more than once a minute.
    ("grpc.keepalive_time_ms", 65_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),  # a stream that only listens sends none, and must be asked after for ever
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
)


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
        self._credentials, context = self._read()
        self._calls = Caller(peer.endpoint, peer.server_name, context, MAX_MESSAGE_BYTES)
        self._open()

    def _read(self) -> tuple[grpc.ChannelCredentials | None, ssl.SSLContext | None]:
        """Raises ProfileError."""
        self.tls_hash = b""
        if not self._peer.tls_ca:
            if self._tls is not None:
                raise ProfileError(f"{self._field}: is empty, but the profile has client TLS; name the peer's TLS CA")
            return None, None
        found = files.read_certificates(self._peer.tls_ca, self._field)
        authorities = b"".join(item.public_bytes(serialization.Encoding.PEM) for item in found)
        context = _context(authorities)
        if self._tls is None:
            return grpc.ssl_channel_credentials(authorities), context
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
        try:
            context.load_cert_chain(self._tls.certificate, self._tls.key)
        except OSError as error:  # OpenSSL reads them once more: they may have been replaced meanwhile
            raise ProfileError(f"tls: {self._tls.certificate} and {self._tls.key} cannot be used: {error}") from None
        return grpc.ssl_channel_credentials(authorities, files.read_file(self._tls.key, "tls.key"), chain), context

    def _open(self) -> None:
        options: list[tuple[str, Any]] = list(_OPTIONS)
        if self._peer.server_name:
            options.append(("grpc.ssl_target_name_override", self._peer.server_name))
        if self._credentials is None:
            self._channel = grpc.aio.insecure_channel(self.address, options)
        else:
            self._channel = grpc.aio.secure_channel(self.address, self._credentials, options)
        self._deliver: Any = self._channel.stream_stream(
            "/protos.Deliver/Deliver",
            request_serializer=Envelope.SerializeToString,
            response_deserializer=DeliverResponse.FromString,
        )

    async def evaluate(self, request: Any, timeout_s: float) -> Any:
        return EvaluateResponse.FromString(await self._call("/gateway.Gateway/Evaluate", request, timeout_s))

    async def endorse(self, request: Any, timeout_s: float) -> Any:
        return EndorseResponse.FromString(await self._call("/gateway.Gateway/Endorse", request, timeout_s))

    async def execute(self, signed: Any, timeout_s: float) -> Any:
        """By this very peer: its gateway may choose another one of the organisation."""
        return ProposalResponse.FromString(await self._call("/protos.Endorser/ProcessProposal", signed, timeout_s))

    async def submit(self, request: Any, timeout_s: float) -> Any:
        return SubmitResponse.FromString(await self._call("/gateway.Gateway/Submit", request, timeout_s))

    async def _call(self, path: str, request: Any, timeout_s: float) -> bytes:
        self.renew()
        return await self._calls.call(path, request.SerializeToString(), timeout_s)

    def answered_since(self, instant: float) -> bool:
        """Whether it has answered any call, but for the stream of blocks, since then (the loop's clock)."""
        return self._calls.answered_since(instant)

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
            self._credentials, context = self._read()
        except ProfileError as error:
            self.tls_hash = before
            _LOG.error("the new TLS files for peer %s are not used: %s", self.address, error)
            return False
        self._calls.trust(context)
        self._calls.retire()
        old = self._channel
        self._open()
        task = asyncio.create_task(old.close(_OLD_CHANNEL_S), name=f"close-{self.address}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        return True

    async def close(self) -> None:
        for task in self._leaving:
            task.cancel()
        self._calls.close()
        await self._channel.close(None)


def _context(authorities: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an intermediate may be all that the profile names
    context.load_verify_locations(cadata=authorities.decode("ascii"))
    context.set_alpn_protocols(["h2"])
    return context
