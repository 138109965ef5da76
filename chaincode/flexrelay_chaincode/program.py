"""Runs one call: by the contracts of this process, or by passing it on to another chaincode."""

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Protocol

from google.protobuf.message import DecodeError

from flexrelay_chaincode import wire
from flexrelay_chaincode.config import ChaincodeConfig, ConfigError
from flexrelay_chaincode.context import FabricContext, Peer
from flexrelay_chaincode.failure import Rejected
from flexrelay_chaincode.proposal import Invocation
from flexrelay_chaincode.wire import Announced
from flexrelay_contracts.invocation import EVENTS, FAILED, OK, QUERY, SUBMIT, Failure, encode_events
from flexrelay_contracts.refusal import Refused
from flexrelay_contracts.runtime import Query, Transaction, invoke, query
from flexrelay_schemas.canonical import CanonicalError, canonical, parse

_LOG: Final = logging.getLogger(__name__)

Transactions = Mapping[str, Transaction[Any]]
Queries = Mapping[str, Query[Any]]
Event = tuple[str, bytes]


@dataclass(slots=True)
class Answer:
    """What goes back to the client. `function` is for logs; empty when the call did not come so far."""

    function: str = ""
    payload: bytes = b""
    event: Event | None = None
    failure: Failure | None = None
    text: str = ""
    """The failure's text as another chaincode wrote it; empty: made from `failure`."""


class Program(Protocol):
    def run(self, invocation: Invocation, peer: Peer, announced: Announced, answer: Answer) -> None:
        """Fill in `answer`. Raises Refused and Rejected; nothing has been written then."""
        ...


class Contracts:
    """Executes the functions of a contract module. `clock` gives wall-clock UTC ms."""

    def __init__(
        self,
        transactions: Transactions,
        queries: Queries,
        config: ChaincodeConfig,
        clock: Callable[[], int],
    ) -> None:
        self._transactions = transactions
        self._queries = queries
        self._config = config
        self._clock = clock

    def run(self, invocation: Invocation, peer: Peer, announced: Announced, answer: Answer) -> None:
        match invocation.args:
            case [kind, intent] if kind == SUBMIT:
                self._submit(invocation, intent, peer, announced, answer)
            case [kind, name, args] if kind == QUERY:
                self._query(invocation, name, args, peer, announced, answer)
            case args:
                what = f"{len(args)} arguments; expected submit and an intent, or query, name and JSON"
                raise Rejected("malformed_call", f"a call with {what}")

    def _submit(self, invocation: Invocation, intent: bytes, peer: Peer, announced: Announced, answer: Answer) -> None:
        _check_time(invocation.time_ms, self._clock(), self._config.guard_ms)
        ctx = self._context(invocation, peer, announced, read_only=False)
        chosen = _Chosen(self._transactions, self._config, invocation.chaincode, answer)

        def run() -> bytes:
            result = canonical(dict(invoke(ctx, intent, chosen)))
            ctx.finish()
            for kind, payload in ctx.writes.requests(announced):
                peer.ask(kind, payload)
            return result

        answer.payload = _guarded(invocation, answer, run)
        if ctx.events:
            answer.event = (EVENTS, encode_events(ctx.events))

    def _query(
        self, invocation: Invocation, name: bytes, data: bytes, peer: Peer, announced: Announced, answer: Answer
    ) -> None:
        try:
            function, args = name.decode(), parse(data)
        except (UnicodeDecodeError, CanonicalError) as error:
            kind = type(error).__name__
            raise Rejected("malformed_call", f"the query's name or arguments cannot be read ({kind})") from None
        if not isinstance(args, dict):
            raise Rejected("malformed_call", "the query's arguments are no JSON object")
        answer.function = function if function in self._queries else ""
        ctx = self._context(invocation, peer, announced, read_only=True)
        answer.payload = _guarded(invocation, answer, lambda: canonical(query(ctx, function, args, self._queries)))

    def _context(self, invocation: Invocation, peer: Peer, announced: Announced, *, read_only: bool) -> FabricContext:
        config = self._config
        members = config.collections
        return FabricContext(peer, announced, invocation, org=config.org, members=members, read_only=read_only)


_TOUCHED: Final = "entry"


class Forward:
    """Passes every call on to another chaincode of the channel, so that this one's endorsement policy counts too."""

    def __init__(self, target: str) -> None:
        self._target = target

    def run(self, invocation: Invocation, peer: Peer, announced: Announced, answer: Answer) -> None:
        answer.function = f"-> {self._target}"
        spec = wire.ChaincodeSpec(
            chaincode_id=wire.ChaincodeID(name=self._target), input=wire.ChaincodeInput(args=invocation.args)
        )
        message = wire.ChaincodeMessage
        # A read of its own state, which is always empty: a peer plans endorsements only for chaincodes whose state was
        # touched, and this one's policy is what the entry is there for.
        peer.ask(message.GET_STATE, wire.GetState(key=_TOUCHED).SerializeToString())
        try:
            called = message.FromString(peer.ask(message.INVOKE_CHAINCODE, spec.SerializeToString()))
            if called.type != message.COMPLETED:
                raise Rejected("peer_error", f"{self._target} gave no answer")
            response = wire.Response.FromString(called.payload)
        except DecodeError:
            raise Rejected("peer_error", f"the answer of {self._target} cannot be read") from None
        if response.status != OK:
            answer.failure = Failure("rejected", "forwarded", f"{self._target} says no")
            answer.text = response.message
            return
        answer.payload = response.payload
        if called.HasField("chaincode_event"):
            answer.event = (called.chaincode_event.event_name, called.chaincode_event.payload)


def make_program(config: ChaincodeConfig, clock: Callable[[], int] | None = None) -> Program:
    """The program that the configuration asks for. Raises ConfigError when there is no such contract module.

    A module may bring a program of its own: a function `make_program` of the configuration.
    """
    if config.forward_to is not None:
        return Forward(config.forward_to)
    try:
        module = import_module(config.contract)
        if hasattr(module, "make_program"):
            own: Program = module.make_program(config)
            return own
        transactions, queries = module.TRANSACTIONS, module.QUERIES
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"contract: {config.contract} is no module with TRANSACTIONS and QUERIES: {error}") from None
    return Contracts(transactions, queries, config, clock or wall_clock)


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


def response(answer: Answer, text: str) -> bytes:
    """The marshalled response; `text` is the failure's."""
    if answer.failure is None:
        done: bytes = wire.Response(status=OK, payload=answer.payload).SerializeToString()
        return done
    failed: bytes = wire.Response(status=FAILED, message=text).SerializeToString()
    return failed


class _Chosen(Mapping[str, Transaction[Any]]):
    """The transactions; taking one notes its name and checks that the proposal came in by its entry."""

    def __init__(self, transactions: Transactions, config: ChaincodeConfig, called: str, answer: Answer) -> None:
        self._transactions = transactions
        self._config = config
        self._called = called
        self._answer = answer

    def __getitem__(self, name: str) -> Transaction[Any]:
        found = self._transactions[name]
        self._answer.function = name
        entry = self._config.entries.get(name.partition(".")[0], self._config.name)
        if self._called != entry:
            raise Rejected("wrong_entry", f"{name} is called through chaincode {entry}, not {self._called}", "function")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._transactions)

    def __len__(self) -> int:
        return len(self._transactions)


def _check_time(timestamp: int, now: int, guard_ms: int) -> None:
    distance = timestamp - now
    if abs(distance) > guard_ms:
        side = "ahead of" if distance > 0 else "behind"
        raise Rejected(
            "timestamp",
            f"the transaction's timestamp {timestamp} is {abs(distance)} ms {side} the peer's clock; "
            f"at most {guard_ms} ms are allowed",
        )


def _guarded(invocation: Invocation, answer: Answer, run: Callable[[], bytes]) -> bytes:
    """Run contract code; a defect in it is a refusal too: the same call would fail again.

    An exception's own text may hold a private value, so only its type and place are told.
    """
    try:
        return run()
    except (Refused, Rejected):
        raise
    except DecodeError:
        raise Rejected("peer_error", "an answer of the peer cannot be read") from None
    except Exception as error:
        place = "".join(traceback.format_tb(error.__traceback__))
        name, kind = answer.function or "the call", type(error).__name__
        _LOG.error("contract function failed: %s\n%s", kind, place, extra={"tx_id": invocation.tx_id, "function": name})
        raise Refused("contract_failure", f"{name} failed: {kind}") from None
