"""The Fabric gateway client: the ledger port on Hyperledger Fabric."""
