"""Where this adapter's servers listen, in the words of the adapters' HTTP server."""

from flexrelay_adapters import _http
from flexrelay_adapters.iotagent.config import Listen

_CONNECTIONS = 4096


def listening(listen: Listen) -> _http.Listen:
    """With a `ca` every client must show a certificate of it."""
    tls = None
    if listen.tls is not None:
        ca = listen.tls.ca
        tls = _http.HttpTls(
            certificate=listen.tls.certificate, key=listen.tls.key, client_ca=ca, client_required=ca is not None
        )
    return _http.Listen(host=listen.host, port=listen.port, tls=tls, max_connections=_CONNECTIONS)
