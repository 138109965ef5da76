"""The plain put of the Go chaincode in the benchmarks, on our shim: one write a transaction, no contract.

Arguments: [b"submit", key NUL value]; the answer is an empty JSON object.
"""

from flexrelay_chaincode import wire
from flexrelay_chaincode.config import ChaincodeConfig
from flexrelay_chaincode.context import Peer
from flexrelay_chaincode.failure import Rejected
from flexrelay_chaincode.program import Answer, Program
from flexrelay_chaincode.proposal import Invocation
from flexrelay_chaincode.wire import Announced
from flexrelay_contracts.invocation import SUBMIT
from flexrelay_contracts.refusal import Refused


class Plain:
    """A `flexrelay_chaincode.program.Program`."""

    def run(self, invocation: Invocation, peer: Peer, announced: Announced, answer: Answer) -> None:
        if invocation.args[0] != SUBMIT:
            raise Refused("unknown_function", "there is nothing to ask here")
        answer.function = "put"
        key, found, value = invocation.args[-1].partition(b"\0")
        if not found:
            raise Rejected("malformed_call", "the second argument is key NUL value")
        peer.ask(wire.ChaincodeMessage.PUT_STATE, wire.PutState(key=key.decode(), value=value).SerializeToString())
        answer.payload = b"{}"


def make_program(config: ChaincodeConfig) -> Program:
    """What `flexrelay_chaincode.program.make_program` takes instead of TRANSACTIONS and QUERIES."""
    return Plain()
