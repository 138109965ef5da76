"""One peer's stream: registration, then calls and answers. Knows no gRPC: bytes come in, bytes go out."""

import logging
import time
from typing import Any, Final

from google.protobuf.message import DecodeError

from flexrelay_chaincode import wire
from flexrelay_chaincode.call import Call, Send
from flexrelay_chaincode.config import ChaincodeConfig
from flexrelay_chaincode.failure import Rejected, failure_text
from flexrelay_chaincode.metrics import Metrics
from flexrelay_chaincode.pool import Pool
from flexrelay_chaincode.program import Answer, Program, response
from flexrelay_chaincode.proposal import read_invocation
from flexrelay_chaincode.wire import Announced, read_announced
from flexrelay_contracts.invocation import Failure
from flexrelay_contracts.refusal import Refused

_LOG: Final = logging.getLogger(__name__)
_FORGET_S: Final = 60.0
"""How long a call that ended without the peer's last answer keeps its transaction id."""
_ENVELOPE_BYTES: Final = 4_096

Message = wire.ChaincodeMessage


class Session:
    """`receive` is called by the stream's reader, `expire` by another thread, calls run in the pool's greenlets. They
    share a dictionary, whose operations are atomic, and each call's claim."""

    def __init__(self, config: ChaincodeConfig, program: Program, pool: Pool, metrics: Metrics, send: Send) -> None:
        self._config = config
        self._program = program
        self._pool = pool
        self._metrics = metrics
        self._send = send
        self._calls: dict[tuple[str, str], Call] = {}
        self._announced: Announced | None = None
        self._closed = False
        self.draining = False
        self.started = time.monotonic()

    @property
    def ready(self) -> bool:
        return self._announced is not None

    def register(self) -> None:
        payload = wire.ChaincodeID(name=self._config.id).SerializeToString()
        self._send(Message(type=Message.REGISTER, payload=payload).SerializeToString())

    def receive(self, data: bytes) -> None:
        """Take one message of the peer. Nothing that a peer sends ends the stream."""
        try:
            message = Message.FromString(data)
        except DecodeError:
            self._ignore("an unreadable message")
            return
        match message.type:
            case Message.RESPONSE | Message.ERROR:
                self._answered(message)
            case Message.TRANSACTION | Message.INIT:
                self._start(message)
            case Message.KEEPALIVE:
                self._send(data)
            case Message.REGISTERED:
                _LOG.info("registered as %s", self._config.id)
            case Message.READY:
                self._opened(message.payload)
            case kind:
                self._ignore(f"a message of type {kind}")

    def expire(self) -> None:
        """Reply for the calls whose time is over; forget those whose last answer never came."""
        now = time.monotonic()
        for key, call in self._calls.copy().items():
            if now < call.deadline:
                continue
            if call.claim():
                text = f"the call took longer than {self._config.call_timeout_s:g} s"
                self._finish(call, _rejected(Rejected("deadline", text)))
                call.end()
                if not call.waiting:
                    self._calls.pop(key, None)
            if now > call.deadline + _FORGET_S:
                self._calls.pop(key, None)

    def close(self) -> None:
        """The stream is gone: nobody is left to reply to."""
        self._closed = True
        for call in self._calls.copy().values():
            call.claim()
            call.end()
        self._calls.clear()

    def _opened(self, payload: bytes) -> None:
        try:
            self._announced = read_announced(payload)
        except ValueError as error:
            _LOG.warning("the peer's READY cannot be read (%s): no batches", error)
            self._announced = Announced()
        found = self._announced
        _LOG.info("ready; keys a write batch: %d, keys a read: %d", found.write_batch, found.get_multiple)

    def _answered(self, message: Any) -> None:
        key = (message.channel_id, message.txid)
        call = self._calls.get(key)
        if call is None or not call.waiting:
            self._ignore("an answer that nobody waits for")
            return
        call.waiting = False
        if call.open:
            call.answer(message)
        else:
            self._calls.pop(key, None)

    def _start(self, message: Any) -> None:
        announced = self._announced
        if announced is None:
            self._ignore("a call before READY")
            return
        config = self._config
        call = Call(message, self._send, timeout_s=config.call_timeout_s, max_bytes=self._payload_limit)
        key = (call.channel, call.tx_id)
        before = self._calls.get(key)
        if before is not None:
            if before.open:
                self._ignore("a transaction id that is running")
            else:
                self._refuse(call, "deadline", "an earlier call with this transaction id still waits for its peer")
        elif message.type == Message.INIT:
            self._refuse(call, "malformed_call", "this chaincode has no Init: commit it without --init-required")
        elif self.draining:
            self._refuse(call, "draining", "this chaincode is stopping: try again or at another organisation's peer")
        else:
            self._calls[key] = call
            if not self._pool.submit(lambda: self._run(call, announced)):
                del self._calls[key]
                self._refuse(call, "busy", f"{self._pool.limit} calls run here already: try again later")

    @property
    def _payload_limit(self) -> int:
        return self._config.max_message_bytes - _ENVELOPE_BYTES

    def _refuse(self, call: Call, code: str, text: str) -> None:
        call.claim()
        self._finish(call, _rejected(Rejected(code, text)))

    def _run(self, call: Call, announced: Announced) -> None:
        """In a greenlet of the pool."""
        if not call.open:
            return
        answer = Answer()
        try:
            invocation = read_invocation(call.message)
            self._program.run(invocation, call, announced, answer)
            if call.broken is not None:
                raise call.broken
        except Refused as error:
            refused = Failure("refused", error.code, error.message, error.field)
            answer.failure = refused if call.broken is None else call.broken.failure()
        except Rejected as error:
            answer.failure = (call.broken or error).failure()
        except Exception as error:
            _LOG.error("a defect of the shim: %s", type(error).__name__, extra={"tx_id": call.tx_id})
            answer.failure = Failure("rejected", "internal", f"the chaincode failed: {type(error).__name__}")
        if call.claim():
            self._finish(call, answer)
            if not call.waiting:
                self._calls.pop((call.channel, call.tx_id), None)

    def _finish(self, call: Call, answer: Answer) -> None:
        """Send the reply. The caller has claimed the call."""
        size = len(answer.payload) + (len(answer.event[1]) if answer.event else 0)
        if size > self._payload_limit:
            text = f"the answer has {size} bytes, the limit is {self._payload_limit}"
            answer.failure = Failure("rejected", "too_large", text)
        failure = answer.failure
        reply = Message(type=Message.COMPLETED, txid=call.tx_id, channel_id=call.channel)
        reply.payload = response(answer, (answer.text or failure_text(failure)) if failure else "")
        if answer.event is not None and failure is None:
            name, payload = answer.event
            reply.chaincode_event.chaincode_id = self._config.name
            reply.chaincode_event.tx_id = call.tx_id
            reply.chaincode_event.event_name = name
            reply.chaincode_event.payload = payload
        if not self._closed:
            self._send(reply.SerializeToString())
        self._metrics.ended(_outcome(failure), time.monotonic() - call.started)
        if failure is not None or _LOG.isEnabledFor(logging.DEBUG):
            self._log(call, answer)

    def _log(self, call: Call, answer: Answer) -> None:
        failure = answer.failure
        found = {
            "tx_id": call.tx_id,
            "channel": call.channel,
            "function": answer.function,
            "ms": round((time.monotonic() - call.started) * 1000, 1),
        }
        if failure is None:
            _LOG.debug("done", extra=found)
        elif failure.kind == "refused":
            _LOG.info("refused", extra={**found, "code": failure.code})
        else:
            _LOG.warning("rejected", extra={**found, "code": failure.code, "reason": failure.message})

    def _ignore(self, what: str) -> None:
        self._metrics.ignored += 1
        _LOG.warning("ignored %s from the peer", what)


def _rejected(error: Rejected) -> Answer:
    return Answer(failure=error.failure())


def _outcome(failure: Failure | None) -> str:
    if failure is None:
        return "ok"
    return "refused" if failure.kind == "refused" else failure.code
