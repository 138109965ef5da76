"""DTLS 1.2 for CoAP: OpenSSL on memory buffers, PSK and X.509, cookies before any state (RFC 6347, RFC 7252 §9)."""
