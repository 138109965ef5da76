"""The one place that knows the OPC UA library (asyncua): a small interface over one connection and its session.

What touches the library's internals is marked with "internal" and held to the versions in `KNOWN`: the raw bytes of
publish responses, so that they can be journaled as they came and decoded in one go. With another version the
library decodes, and the items are encoded again.

Acknowledging is the caller's: the library's own publish loop acknowledges also what its receiver failed to store.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncua
from asyncua import ua as _ua
from asyncua.client.client import Client
from asyncua.common.utils import Buffer, ServiceError
from asyncua.crypto import security_policies
from asyncua.crypto.uacrypto import CertProperties
from asyncua.ua.ua_binary import struct_from_binary, struct_to_binary
from asyncua.ua.uatypes import NodeId, Variant
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from flexrelay_adapters.opcua import wire
from flexrelay_adapters.opcua.config import OpcuaConfig, Security
from flexrelay_adapters.opcua.guard import BEFORE_SESSION_BYTES, Guard
from flexrelay_adapters.opcua.refusals import NO_ANSWER, ConnectionLost, explained
from flexrelay_adapters.opcua.trust import TrustList

log = logging.getLogger(__name__)

ua: Any = _ua
"""The library's names as they are at run time: it does not declare them for type checkers."""

KNOWN: Final = ("2.1.",)
RAW: Final = asyncua.__version__.startswith(KNOWN)
"""Whether the raw bytes of a publish response can be had."""

_POLICIES: Final[dict[Security, Any]] = {
    Security.BASIC256SHA256: security_policies.SecurityPolicyBasic256Sha256,
    Security.AES128: security_policies.SecurityPolicyAes128Sha256RsaOaep,
    Security.AES256: security_policies.SecurityPolicyAes256Sha256RsaPss,
}
_MODES: Final = {
    "Sign": ua.MessageSecurityMode.Sign,
    "SignAndEncrypt": ua.MessageSecurityMode.SignAndEncrypt,
}
ITEMS_PER_CALL: Final = 500
"""Monitored items that are made with one request, unless the server wants fewer (MaxMonitoredItemsPerCall)."""
_TOO_MUCH: Final = frozenset(
    {
        ua.StatusCodes.BadTooManyOperations,
        ua.StatusCodes.BadRequestTooLarge,
        ua.StatusCodes.BadResponseTooLarge,
        ua.StatusCodes.BadEncodingLimitsExceeded,
    }
)
_STOCK_BYTES: Final = 2**18
"""The greatest publish response that the library may decode."""
MOST_KEEP_ALIVE_S: Final = 86_400
_PROBE_S: Final = 5.0
"""How often a connection is tried at most; a server may take `timeout_s` for its answer."""
_CLOSE_S: Final = 3.0
_LOST: Final = (OSError, TimeoutError, asyncio.TimeoutError, ua.UaError, ServiceError)


@dataclass(frozen=True, slots=True)
class Monitored:
    """One variable to watch. `node` is the server's id of it (`Connection.resolve`)."""

    handle: int
    node: NodeId
    sampling_ms: float
    queue: int
    deadband: float | None = None
    deadband_percent: float | None = None
    by_time: bool = True
    """A new source time is reported, too, not only another value or status."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """As the server made it."""

    number: int
    publishing_ms: float
    keep_alive_s: float
    server_started: int = 0
    """UTC ms of the start of the server that made it, 0 when it does not tell: after another start the number may be
    somebody else's."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """DataValues of one variable as the server sent them, and where to go on (b"": there is no more)."""

    values: tuple[bytes, ...]
    more: bytes


class Connection:
    """One connection with an activated session. Every method raises ConnectionLost when it is over."""

    def __init__(self, client: Client, config: OpcuaConfig) -> None:
        self._client = client
        self._config = config
        self._namespaces: list[str] = []
        self._guard: Guard | None = None
        self._most = BEFORE_SESSION_BYTES
        self._items_per_call = ITEMS_PER_CALL
        self.broken = ""
        """Why the connection was broken off here."""
        self.lost = asyncio.Event()
        """Set when the library finds that the connection is over."""

    @classmethod
    async def open(cls, config: OpcuaConfig, trust: TrustList | None) -> "Connection":
        """Connect, secure and log in. Raises ConnectionLost, which says what to do where that is known."""
        probe_s = max(_PROBE_S, config.timeout_s)  # the library waits as long for the answer
        client = Client(config.url, timeout=config.timeout_s, watchdog_intervall=probe_s, auto_reconnect=False)
        client.name = client.description = "flexrelay"
        client.application_uri = config.application_uri
        client.session_timeout = config.keep_s * 1000
        connection = cls(client, config)
        client.connection_lost_callback = connection._heard
        connection._stand_guard()
        try:
            if config.security is not Security.NONE:
                assert trust is not None
                await connection._secure(trust)
            if config.username is not None:
                client.set_user(config.username)
                client.set_password(config.password.get_secret_value() if config.password is not None else "")
            elif config.user_certificate is not None and config.user_key is not None:
                await client.load_client_certificate(str(config.user_certificate))
                await client.load_private_key(config.user_key)
            await client.connect()
            if not 0 < client.session_timeout < float("inf"):  # nor NaN, which would upset the loop's timers
                raise ConnectionLost(f"{config.url}: the server makes a session of {client.session_timeout} ms")
            connection._namespaces = await client.get_namespace_array()
        except Exception as error:  # the library's assertions too: what a server says must not end the adapter
            await connection.close()
            if connection.broken:
                raise ConnectionLost(f"{config.url} sends {connection.broken}") from error
            raise explained(error, config) from error
        except BaseException:
            await connection.close()
            raise
        connection._let_more()
        return connection

    def _stand_guard(self) -> None:
        """Before the library's protocol: it bounds nothing of what comes in."""
        transport: Any = self._client.uaclient
        make = getattr(transport, "_make_protocol", None)  # internal
        if make is None:
            log.warning("asyncua %s: what servers send is not bounded", asyncua.__version__)
            return

        def guarded() -> Guard:
            self._guard = Guard(make(), self._most, self._broke)
            return self._guard

        transport._make_protocol = guarded

    def _let_more(self) -> None:
        self._most = self._config.max_message_bytes
        if self._guard is not None:
            self._guard.limit = self._most

    def _broke(self, why: str) -> None:
        self.broken = why
        self.lost.set()

    async def _secure(self, trust: TrustList) -> None:
        config = self._config
        policy, mode = _POLICIES[config.security], _MODES[config.mode]
        endpoints = await self._client.connect_and_get_server_endpoints()
        matching = [e for e in endpoints if e.SecurityMode == mode and e.SecurityPolicyUri == policy.URI]
        if not matching:
            offered = {f"{e.SecurityPolicyUri.rpartition('#')[2]}/{e.SecurityMode.name.rstrip('_')}" for e in endpoints}
            raise ConnectionLost(
                f"{config.url} offers no {config.security}/{config.mode}, but {', '.join(sorted(offered))}: set "
                "`security` and `mode`, or switch it on at the server"
            )
        chain = matching[0].ServerCertificate or b""
        certificate = trust.check_server(chain, config.server or "", config.url)
        own = trust.own()
        await self._client.set_security(
            policy,
            CertProperties(own.certificate, "der"),
            CertProperties(own.key, "pem"),
            server_certificate=CertProperties(certificate.public_bytes(Encoding.DER), "der"),
            mode=mode,
        )
        self._client.certificate_validator = self._same_application

    async def _same_application(self, certificate: x509.Certificate, application: Any) -> None:
        """The session's server says who it is once more, now over the secured channel."""
        if application.ApplicationUri != self._config.server:
            raise ConnectionLost(
                f"the server calls itself {application.ApplicationUri}, its certificate and `server` say "
                f"{self._config.server}: set the server's application URI right"
            )

    async def _heard(self, error: Exception) -> None:
        self.lost.set()

    async def close(self, *, keep_subscriptions: bool = False) -> None:
        """End it. Never raises. With `keep_subscriptions` the server goes on queueing for a while."""
        client, transport = self._client, self._client.uaclient
        # internal: `Client.disconnect` always deletes the subscriptions, and warns when the socket is closed already
        for task in (client._supervisor_task, client._stale_watchdog_task, client._renew_channel_task):
            if task is not None:
                task.cancel()
        transport.request_disconnect()
        transport.pre_request_hook = None
        try:
            if transport.protocol is not None and not transport.protocol.is_closed:
                async with asyncio.timeout(_CLOSE_S):
                    await transport.close_session(not keep_subscriptions)
                    await transport.close_secure_channel()
        except (*_LOST, AttributeError, RuntimeError) as error:
            log.debug("closing %s: %s", self._config.url, error)
        finally:
            if transport.protocol is not None:
                transport.disconnect_socket()

    def resolve(self, text: str) -> NodeId:
        """The node id on this server. Raises ValueError when its namespace is not there."""
        if text.startswith("nsu="):
            uri, _, rest = text[4:].partition(";")
            if uri not in self._namespaces:
                raise ValueError(f"{text}: the server has no namespace {uri}; it has {', '.join(self._namespaces)}")
            text = f"ns={self._namespaces.index(uri)};{rest}"
        return NodeId.from_string(text)

    def text_of(self, node: NodeId) -> str:
        """The node id with its namespace's URI, as a configuration should name it."""
        text: str = ua.NodeId(node.Identifier, 0, node.NodeIdType).to_string()
        text = text.removeprefix("ns=0;")
        index = node.NamespaceIndex
        return f"nsu={self._namespaces[index]};{text}" if 0 < index < len(self._namespaces) else text

    async def subscribe(self) -> Subscription:
        """A new subscription that survives `keep_s` without us."""
        config = self._config
        keep_alive = max(1, round(10_000 / config.publishing_ms))
        request = ua.CreateSubscriptionRequest()
        request.Parameters = ua.CreateSubscriptionParameters(
            RequestedPublishingInterval=config.publishing_ms,
            RequestedLifetimeCount=max(3 * keep_alive, round(config.keep_s * 1000 / config.publishing_ms)),
            RequestedMaxKeepAliveCount=keep_alive,
            MaxNotificationsPerPublish=0,
            PublishingEnabled=True,
            Priority=0,
        )
        found = (await self._ask(request, ua.CreateSubscriptionResponse)).Parameters
        every_ms = found.RevisedPublishingInterval
        keep_alive_s = every_ms * found.RevisedMaxKeepAliveCount / 1000
        if not (every_ms > 0 and keep_alive_s <= MOST_KEEP_ALIVE_S):  # nor NaN
            raise ConnectionLost(
                f"{config.url}: the server makes a subscription of {every_ms} ms that tells that it lives every "
                f"{keep_alive_s} s; at most {MOST_KEEP_ALIVE_S} s are taken"
            )
        return Subscription(found.SubscriptionId, every_ms, keep_alive_s, await self.started())

    async def started(self) -> int:
        """When the server has started, UTC ms; 0 when it does not tell."""
        try:
            found = await self.read(ua.NodeId(ua.ObjectIds.Server_ServerStatus_StartTime))
        except ValueError:
            return 0
        except ConnectionLost as error:
            if not error.name or error.name in NO_ANSWER:
                raise
            return 0
        return wire.milliseconds(_ticks(found)) if isinstance(found, datetime) else 0

    async def monitor(self, subscription: int, items: Sequence[Monitored]) -> list[str]:
        """Watch variables; one text an item: "" or why the server does not."""
        found: list[str] = []
        while len(found) < len(items):
            part = items[len(found) : len(found) + self._items_per_call]
            try:
                found += await self._monitor(subscription, part)
            except ConnectionLost as error:
                if error.status not in _TOO_MUCH or len(part) == 1:
                    raise
                self._items_per_call = len(part) // 2
        return found

    async def _monitor(self, subscription: int, items: Sequence[Monitored]) -> list[str]:
        request = ua.CreateMonitoredItemsRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.ItemsToCreate = [_item(item) for item in items]
        results = self._each(await self._ask(request, ua.CreateMonitoredItemsResponse), len(items))
        return ["" if result.StatusCode.is_good() else result.StatusCode.name for result in results]

    async def publish(self, acknowledge: Sequence[tuple[int, int]]) -> wire.Publish:
        """Wait for the next notification. `acknowledge` holds (subscription, sequence) of what is stored."""
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = [
            ua.SubscriptionAcknowledgement(SubscriptionId=number, SequenceNumber=sequence)
            for number, sequence in acknowledge
        ]
        body = await self._send(request, timeout=0)
        try:
            if RAW:
                return wire.parse_publish(body)
        except wire.Malformed:
            log.info("%s: an unusual publish response goes through the library's decoder", self._config.url)
        if len(body) > _STOCK_BYTES:
            raise ConnectionLost(f"{self._config.url}: a publish response of {len(body)} bytes that cannot be read")
        try:
            return stock_publish(body)
        except wire.Malformed as error:
            raise ConnectionLost(f"{self._config.url}: a publish response that cannot be read: {error}") from error

    async def republish(self, subscription: int, sequence: int) -> wire.Publish | None:
        """A notification once more; None when the server has it no longer."""
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = subscription
        request.Parameters.RetransmitSequenceNumber = sequence
        try:
            body = await self._send(request)
        except ConnectionLost as error:
            if error.status == ua.StatusCodes.BadMessageNotAvailable:
                return None
            raise
        try:
            return wire.parse_republish(body, subscription)
        except wire.Malformed as error:
            raise ConnectionLost(f"{self._config.url}: a republish response that cannot be read: {error}") from error

    async def transfer(self, subscription: int) -> tuple[int, ...] | None:
        """Take over a subscription of an earlier session: the sequence numbers that wait; None when it is gone."""
        request = ua.TransferSubscriptionsRequest()
        request.Parameters.SubscriptionIds = [subscription]
        request.Parameters.SendInitialValues = False
        try:
            response = await self._ask(request, ua.TransferSubscriptionsResponse)
        except ConnectionLost as error:
            if error.status is not None:
                return None
            raise
        results = response.Parameters.Results
        if not results or not results[0].StatusCode.is_good():
            return None
        return tuple(results[0].AvailableSequenceNumbers or ())

    async def history(
        self, node: NodeId, from_ms: int, until_ms: int, most: int, continuation: bytes
    ) -> HistoryPage | None:
        """DataValues with source times in [from_ms, until_ms), oldest first; None where the server keeps none."""
        details = ua.ReadRawModifiedDetails()
        details.IsReadModified = False
        details.StartTime, details.EndTime = _instant(from_ms), _instant(until_ms)
        details.NumValuesPerNode = most
        details.ReturnBounds = False
        wanted = ua.HistoryReadValueId()
        wanted.NodeId = node
        wanted.ContinuationPoint = continuation or None
        request = ua.HistoryReadRequest()
        request.Parameters.HistoryReadDetails = details
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.ReleaseContinuationPoints = False
        request.Parameters.NodesToRead = [wanted]
        try:
            status, more, values = wire.parse_history(await self._send(request))
        except wire.Malformed as error:
            log.warning("%s: history of %s: %s", self._config.url, node.to_string(), error)
            return None
        return HistoryPage(values, more) if ua.StatusCode(status).is_good() else None

    async def read(self, node: NodeId, attribute: Any = ua.AttributeIds.Value) -> Any:
        """The value of an attribute. Raises ValueError with the StatusCode when it is Bad."""
        request = ua.ReadRequest()
        wanted = ua.ReadValueId()
        wanted.NodeId, wanted.AttributeId = node, attribute
        request.Parameters.NodesToRead = [wanted]
        (value,) = self._each(await self._ask(request, ua.ReadResponse), 1)
        if value.StatusCode is not None and not value.StatusCode.is_good():
            raise ValueError(f"{node.to_string()}: {value.StatusCode.name}")
        return value.Value.Value if value.Value is not None else None

    async def write(self, node: NodeId, value: Variant) -> str:
        """ "" or the StatusCode's name when the server refused."""
        request = ua.WriteRequest()
        wanted = ua.WriteValue()
        wanted.NodeId, wanted.AttributeId = node, ua.AttributeIds.Value
        wanted.Value = ua.DataValue(value, StatusCode=None)
        request.Parameters.NodesToWrite = [wanted]
        (status,) = self._each(await self._ask(request, ua.WriteResponse), 1)
        return "" if status.is_good() else str(status.name)

    async def call(self, target: NodeId, method: NodeId, arguments: Sequence[Variant]) -> tuple[str, list[Any]]:
        """("" or the StatusCode's name, output arguments)."""
        wanted = ua.CallMethodRequest()
        wanted.ObjectId, wanted.MethodId, wanted.InputArguments = target, method, list(arguments)
        request = ua.CallRequest()
        request.Parameters.MethodsToCall = [wanted]
        (result,) = self._each(await self._ask(request, ua.CallResponse), 1)
        outputs = [argument.Value for argument in result.OutputArguments or ()]
        return "" if result.StatusCode.is_good() else str(result.StatusCode.name), outputs

    async def browse(self, node: NodeId, *, inverse: bool = False) -> list[Any]:
        """The forward hierarchical references to objects and variables; `inverse`: those from above."""
        wanted = ua.BrowseDescription()
        wanted.NodeId = node
        wanted.BrowseDirection = ua.BrowseDirection.Inverse if inverse else ua.BrowseDirection.Forward
        wanted.ReferenceTypeId = ua.NodeId(ua.ObjectIds.HierarchicalReferences)
        wanted.IncludeSubtypes = True
        wanted.NodeClassMask = ua.NodeClass.Object | ua.NodeClass.Variable
        wanted.ResultMask = ua.BrowseResultMask.All
        request = ua.BrowseRequest()
        request.Parameters.NodesToBrowse = [wanted]
        request.Parameters.RequestedMaxReferencesPerNode = 1000
        (result,) = self._each(await self._ask(request, ua.BrowseResponse), 1)
        found = list(result.References or ())
        while result.ContinuationPoint:
            following = ua.BrowseNextRequest()
            following.Parameters.ReleaseContinuationPoints = False
            following.Parameters.ContinuationPoints = [result.ContinuationPoint]
            (result,) = self._each((await self._ask(following, ua.BrowseNextResponse)).Parameters, 1)
            found += result.References or ()
        return found

    def _each(self, response: Any, count: int) -> list[Any]:
        """Its results, one for each of what was asked. Raises ConnectionLost when they are not as many."""
        results = list(response.Results or ())
        if len(results) != count:
            raise ConnectionLost(
                f"{self._config.url}: a {type(response).__name__} with {len(results)} results, {count} were asked for"
            )
        return results

    async def _ask(self, request: Any, kind: type) -> Any:
        body = await self._send(request)
        try:
            return struct_from_binary(kind, Buffer(body))
        except Exception as error:
            raise ConnectionLost(f"{self._config.url}: an answer that is no {kind.__name__}: {error}") from error

    async def _send(self, request: Any, timeout: float | None = None) -> bytes:
        """The raw bytes of the answer."""
        try:
            # internal: the session's sender, which gives the answer's bytes
            buffer = await self._client.uaclient.session._send_request(request, timeout)
        except _LOST as error:
            if self.broken:
                raise ConnectionLost(f"{self._config.url} sends {self.broken}") from error
            raise explained(error, self._config) from error
        except Exception as error:
            raise ConnectionLost(f"{self._config.url}: {error}") from error
        return bytes(buffer)


def stock_publish(body: bytes) -> wire.Publish:
    """A publish response by the library's decoder; the items are encoded again. Raises wire.Malformed."""
    try:
        found = struct_from_binary(ua.PublishResponse, Buffer(body)).Parameters
        changes: list[wire.Changes] = []
        status = None
        for part in found.NotificationMessage.NotificationData or ():
            if isinstance(part, ua.DataChangeNotification):
                items = b"".join([struct_to_binary(item) for item in part.MonitoredItems])
                changes.append(wire.Changes(items, 0, len(items), len(part.MonitoredItems)))
            elif isinstance(part, ua.StatusChangeNotification):
                status = int(part.Status.value)
    except Exception as error:  # the library raises what comes
        raise wire.Malformed(str(error)) from error
    message = found.NotificationMessage
    available = tuple(found.AvailableSequenceNumbers or ())
    return wire.Publish(
        found.SubscriptionId, message.SequenceNumber, found.MoreNotifications, tuple(changes), status, available
    )


def stock_items(changes: wire.Changes) -> list[wire.Item]:
    """The items of a notification by the library's decoder: what the fast one is compared with in tests."""
    buffer = Buffer(changes.body, changes.start, changes.end - changes.start)
    items = []
    for _ in range(changes.items):
        found = struct_from_binary(ua.MonitoredItemNotification, buffer)
        value = found.Value
        variant = value.Value
        number = None
        kind = 0 if variant is None or variant.VariantType is None else variant.VariantType.value
        if variant is not None and not variant.is_array and 1 <= kind <= 11:
            number = variant.Value
        status = 0 if value.StatusCode is None else int(value.StatusCode.value)
        items.append(
            wire.Item(
                found.ClientHandle,
                number,
                status,
                _ticks(value.SourceTimestamp),
                _ticks(value.ServerTimestamp),
                wire.LIMITS["f"] if kind == 10 else wire.LIMITS["d"],
            )
        )
    return items


def _item(item: Monitored) -> Any:
    request = ua.MonitoredItemCreateRequest()
    request.ItemToMonitor.NodeId = item.node
    request.ItemToMonitor.AttributeId = ua.AttributeIds.Value
    request.MonitoringMode = ua.MonitoringMode.Reporting
    wanted = request.RequestedParameters
    wanted.ClientHandle = item.handle
    wanted.SamplingInterval = item.sampling_ms
    wanted.QueueSize = item.queue
    wanted.DiscardOldest = True
    if item.deadband is not None or item.deadband_percent is not None:
        percent = item.deadband_percent is not None
        wanted.Filter = ua.DataChangeFilter(
            Trigger=ua.DataChangeTrigger.StatusValue,
            DeadbandType=ua.DeadbandType.Percent if percent else ua.DeadbandType.Absolute,
            DeadbandValue=item.deadband_percent if percent else item.deadband,
        )
    elif item.by_time:
        wanted.Filter = ua.DataChangeFilter(
            Trigger=ua.DataChangeTrigger.StatusValueTimestamp, DeadbandType=ua.DeadbandType.None_, DeadbandValue=0.0
        )
    return request


def _instant(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def _ticks(time: datetime | None) -> int:
    if time is None:
        return 0
    time = time if time.tzinfo is not None else time.replace(tzinfo=UTC)
    return wire.ticks(0) + (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 10


def variant(kind: str, value: Any) -> Variant:
    """A scalar of a built-in type, by its name."""
    return Variant(value, ua.VariantType[kind])
