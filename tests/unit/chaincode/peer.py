"""A peer's side of the chaincode protocol over a real gRPC stream: one state in memory, no versions, no blocks.

It is as strict as Fabric where the shim could be wrong: a message type that was not announced ends the stream, a second
request of one transaction while the first is out is dropped, a batch beyond the announced size is an error, ranges come
in batches of 100 and end silently at the query limit.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flexrelay_chaincode import wire

Message = wire.ChaincodeMessage
BATCH = 100


@dataclass(frozen=True)
class Client:
    """Who signs proposals."""

    org: str
    certificate: bytes
    identity: str

    @classmethod
    def new(cls, org: str = "dso") -> "Client":
        import datetime

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        return cls(org, pem, hashlib.sha256(point).hexdigest())

    def serialised(self) -> bytes:
        value: bytes = wire.SerializedIdentity(mspid=self.org, id_bytes=self.certificate).SerializeToString()
        return value


@dataclass
class Result:
    """The chaincode's reply and what the peer's simulator holds for it."""

    status: int
    message: str
    payload: bytes
    event: tuple[str, bytes] | None
    writes: dict[str, bytes | None] = field(default_factory=dict)
    private: dict[tuple[str, str], bytes | None] = field(default_factory=dict)
    policies: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


@dataclass
class Served:
    """One transaction's simulator at the peer."""

    result: Result = field(default_factory=lambda: Result(0, "", b"", None))
    iterators: dict[str, tuple[Iterator[tuple[str, bytes]], list[int]]] = field(default_factory=dict)
    paged: bool = False
    busy: bool = False
    done: "asyncio.Future[Any] | None" = None


class PeerDouble:
    def __init__(
        self, address: str, *, write_batch: int = 1000, multiple: int = 1000, query_limit: int = 100_000
    ) -> None:
        self.address = address
        self.write_batch, self.multiple, self.query_limit = write_batch, multiple, query_limit
        self.state: dict[str, bytes] = {}
        self.private: dict[tuple[str, str], bytes] = {}
        self.policies: dict[str, bytes] = {}
        self.registered = ""
        self.refuses = False
        """Whether the registration gets no answer, as a peer does that dialled for another package."""
        self.silent: set[str] = set()
        """Message types that get no answer."""
        self.failing: dict[str, str] = {}
        """Message types that get an ERROR with this text."""
        self.invoke: Callable[[str, Sequence[bytes]], bytes] | None = None
        """Answers INVOKE_CHAINCODE: (name, args) → a marshalled ChaincodeMessage."""
        self.broken = ""
        self.delay_s = 0.0
        self.gate = asyncio.Event()
        """While it is closed nothing is answered."""
        self.gate.set()
        self._contexts: dict[tuple[str, str], Served] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()

    async def __aenter__(self) -> "PeerDouble":
        options = [("grpc.max_receive_message_length", 2**27), ("grpc.max_send_message_length", 2**27)]
        self._channel = await self._dial(options)
        self._stream = self._channel.stream_stream(f"/{wire.SERVICE}/{wire.METHOD}")()
        message = Message.FromString(await self._stream.read())
        assert message.type == Message.REGISTER
        self.registered = wire.ChaincodeID.FromString(message.payload).name
        if self.refuses:
            return self
        await self.send(Message(type=Message.REGISTERED))
        await self.send(Message(type=Message.READY, payload=self._announcement()))
        self._reading = asyncio.create_task(self._read())
        return self

    async def _dial(self, options: Any) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.address, options=options)

    async def __aexit__(self, *_: object) -> None:
        if not self.refuses:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        self._stream.cancel()
        await self._channel.close()

    def _announcement(self) -> bytes:
        out = b""
        for number, value in ((1, self.write_batch), (3, self.multiple)):
            if value:
                out += bytes([number << 3, 1, (number + 1) << 3]) + _varint(value)
        return out

    async def ended(self) -> tuple[grpc.StatusCode, str]:
        """How the chaincode ended the stream."""
        return await self._stream.code(), await self._stream.details()

    async def send(self, message: Any) -> None:
        await self.send_bytes(message.SerializeToString())

    async def send_bytes(self, data: bytes) -> None:
        async with self._writing:
            await self._stream.write(data)

    async def call(
        self,
        args: Sequence[bytes],
        *,
        client: Client,
        tx_id: str = "",
        time_ms: int | None = None,
        chaincode: str = "flexrelay",
        transient: Mapping[str, bytes] | None = None,
        channel: str = "market",
        kind: int = Message.TRANSACTION,
        commit: bool = True,
        timeout_s: float = 90.0,
    ) -> Result:
        """Execute; a good answer of a call with `commit` goes into the state."""
        tx_id = tx_id or secrets.token_hex(32)
        message = transaction(
            args, client, tx_id=tx_id, time_ms=time_ms, chaincode=chaincode, transient=transient or {}, channel=channel
        )
        message.type = kind
        result = await self.execute(message, timeout_s)
        if commit and result.status == 200:
            self._commit(result)
        return result

    async def execute(self, message: Any, timeout_s: float = 90.0) -> Result:
        context = Served(done=asyncio.get_running_loop().create_future())
        key = (message.channel_id, message.txid)
        assert key not in self._contexts, "a peer takes a transaction id once at a time"
        self._contexts[key] = context
        try:
            await self.send(message)
            assert context.done is not None
            reply = await asyncio.wait_for(context.done, timeout_s)
        finally:
            del self._contexts[key]
        assert reply.type == Message.COMPLETED, "the reply carries a response"
        response = wire.Response.FromString(reply.payload)
        event = reply.chaincode_event
        found = context.result
        found.status, found.message, found.payload = response.status, response.message, response.payload
        found.event = (event.event_name, event.payload) if reply.HasField("chaincode_event") else None
        return found

    def _commit(self, result: Result) -> None:
        for key, value in result.writes.items():
            if value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = value
        for place, value in result.private.items():
            if value is None:
                self.private.pop(place, None)
            else:
                self.private[place] = value
        self.policies.update(result.policies)

    async def _read(self) -> None:
        while (data := await self._stream.read()) is not grpc.aio.EOF:
            message = Message.FromString(data)
            name = Message.Type.Name(message.type)
            context = self._contexts.get((message.channel_id, message.txid))
            if message.type in (Message.COMPLETED, Message.ERROR):
                if context is not None and context.done is not None and not context.done.done():
                    context.done.set_result(message)
                continue
            if message.type == Message.KEEPALIVE:
                continue
            if (name == "WRITE_BATCH_STATE" and not self.write_batch) or (
                name == "GET_STATE_MULTIPLE" and not self.multiple
            ):
                self.broken = f"cannot handle {name}"
                self._stream.cancel()
                return
            if context is None or context.busy:
                self.broken = f"{name}: no context, or a request is out"
                continue
            context.result.requests.append(name)
            if name in self.silent:
                continue
            context.busy = True
            if self.delay_s or not self.gate.is_set():
                task = asyncio.create_task(self._later(message, name, context))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                await self._answer(message, name, context)

    async def _later(self, message: Any, name: str, context: Served) -> None:
        await asyncio.sleep(self.delay_s)
        await self.gate.wait()
        await self._answer(message, name, context)

    async def _answer(self, message: Any, name: str, context: Served) -> None:
        reply = Message(type=Message.RESPONSE, txid=message.txid, channel_id=message.channel_id)
        try:
            if name in self.failing:
                raise PeerFault(self.failing[name])
            reply.payload = self.serve(name, message.payload, context)
        except PeerFault as error:
            reply.type = Message.ERROR
            reply.payload = f"{name} failed: transaction ID: {message.txid}: {error}".encode()
        context.busy = False
        await self.send(reply)

    def serve(self, name: str, payload: bytes, context: Served) -> bytes:
        out: bytes
        match name:
            case "GET_STATE":
                get = wire.GetState.FromString(payload)
                if get.collection:
                    return self.private.get((get.collection, get.key), b"")
                return self.state.get(get.key, b"")
            case "GET_PRIVATE_DATA_HASH":
                get = wire.GetState.FromString(payload)
                value = self.private.get((get.collection, get.key))
                return b"" if value is None else hashlib.sha256(value).digest()
            case "GET_STATE_MULTIPLE":
                keys = wire.GetStateMultiple.FromString(payload).keys
                if len(keys) > self.multiple:
                    raise PeerFault(f"{len(keys)} keys are more than {self.multiple}")
                values = [self.state.get(key, b"") for key in keys]
                out = wire.GetStateMultipleResult(values=values).SerializeToString()
                return out
            case "WRITE_BATCH_STATE":
                records = wire.WriteBatchState.FromString(payload).rec
                if len(records) > self.write_batch:
                    raise PeerFault(f"{len(records)} records are more than {self.write_batch}")
                for record in records:
                    self._write(wire.WriteRecord.Type.Name(record.type), record, context)
                return b""
            case "PUT_STATE":
                self._write(name, wire.PutState.FromString(payload), context)
                return b""
            case "DEL_STATE" | "PURGE_PRIVATE_DATA":
                self._write(name, wire.DelState.FromString(payload), context)
                return b""
            case "PUT_STATE_METADATA":
                self._write(name, wire.PutStateMetadata.FromString(payload), context)
                return b""
            case "GET_STATE_BY_RANGE":
                return self._range(wire.GetStateByRange.FromString(payload), context)
            case "QUERY_STATE_NEXT":
                return self._next(wire.QueryStateNext.FromString(payload).id, context)
            case "QUERY_STATE_CLOSE":
                context.iterators.pop(wire.QueryStateClose.FromString(payload).id, None)
                return b""
            case "INVOKE_CHAINCODE" if self.invoke is not None:
                spec = wire.ChaincodeSpec.FromString(payload)
                return self.invoke(spec.chaincode_id.name, list(spec.input.args))
        raise PeerFault("not served by this double")

    def _write(self, kind: str, record: Any, context: Served) -> None:
        if context.paged:
            raise PeerFault("a write after a paged query")
        result = context.result
        if kind == "PUT_STATE_METADATA":
            assert record.metadata.metakey == wire.VALIDATION_PARAMETER
            result.policies[record.key] = record.metadata.value
        elif kind == "PUT_STATE" and record.collection:
            result.private[record.collection, record.key] = record.value
        elif kind == "PUT_STATE":
            result.writes[record.key] = record.value
        elif kind == "PURGE_PRIVATE_DATA":
            result.private[record.collection, record.key] = None
        else:
            result.writes[record.key] = None

    def _range(self, request: Any, context: Served) -> bytes:
        start, end, size = request.startKey, request.endKey, 0
        if request.metadata:
            metadata = wire.QueryMetadata.FromString(request.metadata)
            size, start = metadata.pageSize, metadata.bookmark or start
        found = [(key, self.state[key]) for key in sorted(self.state) if start <= key and (not end or key < end)]
        if size:
            context.paged = True
            size = min(size, self.query_limit)
            bookmark = found[size][0] if len(found) > size else ""
            tail = wire.QueryResponseMetadata(fetched_records_count=len(found[:size]), bookmark=bookmark)
            return _entries(found[:size], False, "page", tail.SerializeToString())
        name = secrets.token_hex(4)
        context.iterators[name] = (iter(found[: self.query_limit]), [len(found[: self.query_limit])])
        return self._next(name, context)

    def _next(self, name: str, context: Served) -> bytes:
        if name not in context.iterators:
            raise PeerFault("query iterator not found")
        entries, left = context.iterators[name]
        batch = [entry for _, entry in zip(range(BATCH), entries, strict=False)]
        left[0] -= len(batch)
        if left[0] == 0:
            del context.iterators[name]
        return _entries(batch, left[0] > 0, name)


class PeerFault(Exception):
    """What a peer answers with ERROR."""


def transaction(
    args: Sequence[bytes],
    client: Client,
    *,
    tx_id: str,
    time_ms: int | None = None,
    chaincode: str = "flexrelay",
    transient: Mapping[str, bytes] | None = None,
    channel: str = "market",
) -> Any:
    """A TRANSACTION message as a peer sends it."""
    stamp = time.time_ns() // 1_000_000 if time_ms is None else time_ms
    head = wire.ChannelHeader(
        channel_id=channel,
        tx_id=tx_id,
        extension=wire.ChaincodeHeaderExtension(chaincode_id=wire.ChaincodeID(name=chaincode)).SerializeToString(),
    )
    head.timestamp.seconds, head.timestamp.nanos = stamp // 1000, stamp % 1000 * 1_000_000 + 999_999
    signature = wire.SignatureHeader(creator=client.serialised(), nonce=secrets.token_bytes(24))
    header = wire.Header(
        channel_header=head.SerializeToString(), signature_header=signature.SerializeToString()
    ).SerializeToString()
    body = wire.ChaincodeProposalPayload(input=b"", TransientMap=dict(transient or {})).SerializeToString()
    proposal = wire.Proposal(header=header, payload=body).SerializeToString()
    return Message(
        type=Message.TRANSACTION,
        channel_id=channel,
        txid=tx_id,
        payload=wire.ChaincodeInput(args=list(args)).SerializeToString(),
        proposal=wire.SignedProposal(proposal_bytes=proposal, signature=b"checked by the peer"),
    )


def _entries(found: Sequence[tuple[str, bytes]], more: bool, name: str, metadata: bytes = b"") -> bytes:
    response = wire.QueryResponse(has_more=more, id=name, metadata=metadata)
    for key, value in found:
        response.results.add().resultBytes = wire.KV(namespace="flexrelay", key=key, value=value).SerializeToString()
    data: bytes = response.SerializeToString()
    return data


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
