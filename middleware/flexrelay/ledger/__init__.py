"""The ledger port and its implementations; `port` is what the rest of the middleware knows."""
