"""The protobuf messages that the client uses, by name. The generated modules carry no types, so each is an Any."""

from typing import Any

from fabric_protos.common import common_pb2, configtx_pb2, configuration_pb2, ledger_pb2, policies_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.msp import identities_pb2, msp_config_pb2, msp_principal_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_configuration_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    collection_pb2,
    events_pb2,
    policy_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from fabric_protos.peer.lifecycle import chaincode_definition_pb2, db_pb2, lifecycle_pb2
from google.rpc import status_pb2  # type: ignore[import-untyped]  # googleapis-common-protos has no py.typed

_common: Any = common_pb2
_ledger: Any = ledger_pb2
_configtx: Any = configtx_pb2
_configuration: Any = configuration_pb2
_gateway: Any = gateway_pb2
_rwset: Any = rwset_pb2
_kv: Any = kv_rwset_pb2
_msp: Any = identities_pb2
_ab: Any = ab_pb2
_orderer: Any = orderer_configuration_pb2
_event: Any = chaincode_event_pb2
_chaincode: Any = chaincode_pb2
_deliver: Any = events_pb2
_proposal: Any = proposal_pb2
_response: Any = proposal_response_pb2
_transaction: Any = transaction_pb2
_lifecycle: Any = lifecycle_pb2
_definition: Any = chaincode_definition_pb2
_db: Any = db_pb2
_collection: Any = collection_pb2
_policies: Any = policies_pb2
_application: Any = policy_pb2
_principal: Any = msp_principal_pb2
_msp_config: Any = msp_config_pb2

Block: Any = _common.Block
BlockchainInfo: Any = _ledger.BlockchainInfo
ChannelHeader: Any = _common.ChannelHeader
Envelope: Any = _common.Envelope
Header: Any = _common.Header
IdentifierHeader: Any = _common.IdentifierHeader
Metadata: Any = _common.Metadata
OrdererBlockMetadata: Any = _common.OrdererBlockMetadata
Payload: Any = _common.Payload
SignatureHeader: Any = _common.SignatureHeader

ConfigEnvelope: Any = _configtx.ConfigEnvelope
ConsensusType: Any = _orderer.ConsensusType
Orderers: Any = _configuration.Orderers

EndorseRequest: Any = _gateway.EndorseRequest
EndorseResponse: Any = _gateway.EndorseResponse
ErrorDetail: Any = _gateway.ErrorDetail
EvaluateRequest: Any = _gateway.EvaluateRequest
EvaluateResponse: Any = _gateway.EvaluateResponse
SubmitRequest: Any = _gateway.SubmitRequest
SubmitResponse: Any = _gateway.SubmitResponse

ChaincodeAction: Any = _proposal.ChaincodeAction
ChaincodeActionPayload: Any = _transaction.ChaincodeActionPayload
ChaincodeEvent: Any = _event.ChaincodeEvent
ChaincodeHeaderExtension: Any = _proposal.ChaincodeHeaderExtension
ChaincodeInvocationSpec: Any = _chaincode.ChaincodeInvocationSpec
ChaincodeProposalPayload: Any = _proposal.ChaincodeProposalPayload
Proposal: Any = _proposal.Proposal
ProposalResponse: Any = _response.ProposalResponse
ProposalResponsePayload: Any = _response.ProposalResponsePayload
SerializedIdentity: Any = _msp.SerializedIdentity
SignedProposal: Any = _proposal.SignedProposal
Transaction: Any = _transaction.Transaction

KVRWSet: Any = _kv.KVRWSet
HashedRWSet: Any = _kv.HashedRWSet
QueryReads: Any = _kv.QueryReads
QueryReadsMerkleSummary: Any = _kv.QueryReadsMerkleSummary
TxReadWriteSet: Any = _rwset.TxReadWriteSet

DeliverResponse: Any = _deliver.DeliverResponse
SeekInfo: Any = _ab.SeekInfo
SeekPosition: Any = _ab.SeekPosition

QueryChaincodeDefinitionArgs: Any = _lifecycle.QueryChaincodeDefinitionArgs
QueryChaincodeDefinitionResult: Any = _lifecycle.QueryChaincodeDefinitionResult

ChaincodeValidationInfo: Any = _definition.ChaincodeValidationInfo
CollectionConfigPackage: Any = _collection.CollectionConfigPackage
StateData: Any = _db.StateData

ApplicationPolicy: Any = _application.ApplicationPolicy
FabricMSPConfig: Any = _msp_config.FabricMSPConfig
ImplicitMetaPolicy: Any = _policies.ImplicitMetaPolicy
MSPConfig: Any = _msp_config.MSPConfig
MSPRole: Any = _principal.MSPRole
SignaturePolicyEnvelope: Any = _policies.SignaturePolicyEnvelope

RpcStatus: Any = status_pb2.Status

CONFIG = 1
"""Header types (common.HeaderType)."""
ENDORSER_TRANSACTION = 3
DELIVER_SEEK_INFO = 5

SIGNATURES = 0
"""Places in a block's metadata (common.BlockMetadataIndex)."""
TRANSACTIONS_FILTER = 2
COMMIT_HASH = 4
