"""Fabric's protobuf messages that the shim speaks, in one place: the published classes carry no types.

The names are those of hyperledger/fabric-protos (`peer/chaincode_shim.proto` and its neighbours).
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

_shim: Any = import_module("fabric_protos.peer.chaincode_shim_pb2")
_chaincode: Any = import_module("fabric_protos.peer.chaincode_pb2")
_event: Any = import_module("fabric_protos.peer.chaincode_event_pb2")
_proposal: Any = import_module("fabric_protos.peer.proposal_pb2")
_response: Any = import_module("fabric_protos.peer.proposal_response_pb2")
_common: Any = import_module("fabric_protos.common.common_pb2")
_policies: Any = import_module("fabric_protos.common.policies_pb2")
_principal: Any = import_module("fabric_protos.msp.msp_principal_pb2")
_identities: Any = import_module("fabric_protos.msp.identities_pb2")
_queries: Any = import_module("fabric_protos.ledger.queryresult.kv_query_result_pb2")

SERVICE: Final = "protos.Chaincode"
METHOD: Final = "Connect"
VALIDATION_PARAMETER: Final = "VALIDATION_PARAMETER"

ChaincodeMessage = _shim.ChaincodeMessage
GetState = _shim.GetState
GetStateMultiple = _shim.GetStateMultiple
GetStateMultipleResult = _shim.GetStateMultipleResult
PutState = _shim.PutState
DelState = _shim.DelState
PutStateMetadata = _shim.PutStateMetadata
StateMetadata = _shim.StateMetadata
WriteBatchState = _shim.WriteBatchState
WriteRecord = _shim.WriteRecord
GetStateByRange = _shim.GetStateByRange
QueryMetadata = _shim.QueryMetadata
QueryStateNext = _shim.QueryStateNext
QueryStateClose = _shim.QueryStateClose
QueryResponse = _shim.QueryResponse
QueryResponseMetadata = _shim.QueryResponseMetadata
KV = _queries.KV
ChaincodeID = _chaincode.ChaincodeID
ChaincodeInput = _chaincode.ChaincodeInput
ChaincodeSpec = _chaincode.ChaincodeSpec
ChaincodeEvent = _event.ChaincodeEvent
Proposal = _proposal.Proposal
SignedProposal = _proposal.SignedProposal
ChaincodeHeaderExtension = _proposal.ChaincodeHeaderExtension
ChaincodeProposalPayload = _proposal.ChaincodeProposalPayload
Response = _response.Response
Header = _common.Header
ChannelHeader = _common.ChannelHeader
SignatureHeader = _common.SignatureHeader
SignaturePolicy = _policies.SignaturePolicy
SignaturePolicyEnvelope = _policies.SignaturePolicyEnvelope
MSPPrincipal = _principal.MSPPrincipal
MSPRole = _principal.MSPRole
SerializedIdentity = _identities.SerializedIdentity


@dataclass(frozen=True, slots=True)
class Announced:
    """What a peer says in READY that it understands; all zero on Fabric 2.5. Sizes are keys a message; 0 = never."""

    write_batch: int = 0
    get_multiple: int = 0


def read_announced(payload: bytes) -> Announced:
    """Read `ChaincodeAdditionalParams`, which the published Python package does not hold:
    1 use_write_batch, 2 max_size_write_batch, 3 use_get_multiple_keys, 4 max_size_get_multiple_keys, all varints.

    Fields that are not known are left out. Raises ValueError for what is no such message.
    """
    fields: dict[int, int] = {}
    position = 0
    while position < len(payload):
        tag, position = _varint(payload, position)
        match tag & 7:
            case 0:
                fields[tag >> 3], position = _varint(payload, position)
            case 1:
                position += 8
            case 2:
                length, position = _varint(payload, position)
                position += length
            case 5:
                position += 4
            case kind:
                raise ValueError(f"READY: wire type {kind} is unknown")
    if position > len(payload):
        raise ValueError("READY: the message is cut short")
    return Announced(
        write_batch=fields.get(2, 0) if fields.get(1) else 0,
        get_multiple=fields.get(4, 0) if fields.get(3) else 0,
    )


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("READY: the message is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("READY: a number has too many bytes")
