"""Pure calculations that the contracts, the what-if commands and an independent recomputation share.

Integers and bytes in, frozen values out; no context, no I/O. `merkle` (evidence trees), `uniform_auction` and
`merit_order` (clearing), `settlement` (one line item), `baseline` (what would have been), `whatif` (the documents of
`flexrelay market clear|settle`).
"""
