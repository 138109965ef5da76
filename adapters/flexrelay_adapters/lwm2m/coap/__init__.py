"""The Constrained Application Protocol as LwM2M needs it: messages, the message layer, block-wise transfer, observe.

`message` is the pure codec (RFC 7252 §3), `layer` the exchanges with deduplication and retransmission (§4),
`blockwise` RFC 7959, `udp` the socket. Nothing here knows LwM2M.
"""
