"""The contracts of flexrelay: plain synchronous functions over one small context port.

Deterministic by construction: integers only, the transaction's time only, canonical JSON, sorted iteration; no I/O, no
clock, no random numbers, no floats, no time-zone data. The same functions run in the embedded ledger and as Fabric
chaincode. `catalogue` lists every transaction and query, `runtime` executes one, `rules` holds the pure calculations.
"""
