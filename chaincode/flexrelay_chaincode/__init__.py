"""The contracts as Hyperledger Fabric chaincode-as-a-service: the shim between a peer and `flexrelay_contracts`."""
