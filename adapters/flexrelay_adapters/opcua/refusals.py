"""Why a connection did not come about or ended, in words that say what to do."""

from typing import Final

from flexrelay_adapters.opcua.config import OpcuaConfig


class ConnectionLost(ConnectionError):
    """The connection to the server is over or was refused. `status` is the server's StatusCode where it gave one,
    `name` what it is called."""

    def __init__(self, message: str, status: int | None = None, name: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.name = name


NO_ANSWER: Final = frozenset(
    {
        "BadCommunicationError", "BadConnectionClosed", "BadDisconnect", "BadNoCommunication", "BadOutOfMemory",
        "BadRequestCancelledByClient", "BadRequestCancelledByRequest", "BadRequestInterrupted", "BadRequestTimeout",
        "BadResourceUnavailable", "BadSecureChannelClosed", "BadSecureChannelIdInvalid",
        "BadSecureChannelTokenUnknown", "BadSequenceNumberInvalid", "BadServerHalted", "BadServerNotConnected",
        "BadSessionClosed", "BadSessionIdInvalid", "BadSessionNotActivated", "BadShutdown",
        "BadTcpNotEnoughResources", "BadTcpSecureChannelUnknown", "BadTcpServerTooBusy", "BadTimeout",
    }
)  # fmt: skip
"""What says that the request was not dealt with, or that nobody knows: it may be made again. Every other StatusCode is
the server's answer."""
_REMEDIES: Final = {
    "BadIdentityTokenRejected": "the server refuses who we log in as: set `username` and its password, or have the "
    "user certificate trusted at the server",
    "BadIdentityTokenInvalid": "the server does not take this kind of login: set `username` or `user_certificate` as "
    "its endpoint demands",
    "BadUserAccessDenied": "the server refuses this user: check `username`, the password and the user's rights there",
    "BadUserSignatureInvalid": "the user's key does not belong to its certificate: check `user_key`",
    "BadCertificateUntrusted": "the server does not trust our certificate: give it {own} (many servers keep it in a "
    "folder of rejected ones: move it to the trusted ones)",
    "BadSecurityChecksFailed": "the server refuses our certificate, mostly because it does not trust it: give it "
    "{own} (many servers keep it in a folder of rejected ones: move it to the trusted ones)",
    "BadCertificateTimeInvalid": "our certificate is not valid now: renew it with `flexrelay opcua certificate "
    "--renew`, and check both clocks",
    "BadCertificateUriInvalid": "our certificate names another application URI than `application_uri`: make it anew "
    "with `flexrelay opcua certificate --renew`",
    "BadCertificateHostNameInvalid": "the server does not like the host name in our certificate: make it anew with "
    "`flexrelay opcua certificate --renew`",
    "BadCertificateInvalid": "the server cannot use our certificate: it must be RSA with 2048 bits or more; make it "
    "anew with `flexrelay opcua certificate --renew`",
    "BadSecurityPolicyRejected": "the server does not allow this security policy any more: set `security`",
    "BadSecurityModeRejected": "the server does not allow this mode: set `mode`",
    "BadTooManySessions": "the server has no session left: end others, or raise its limit",
    "BadTooManySubscriptions": "the server has no subscription left: end others, or raise its limit",
    "BadTcpEndpointUrlInvalid": "the server does not know the path of `url`",
}

_NO_CHANNEL: Final = (
    "the server broke off while the channel was being secured, mostly because it does not trust our certificate: give "
    "it {own} (many servers keep it in a folder of rejected ones: move it to the trusted ones)"
)


def explained(error: BaseException, config: OpcuaConfig) -> ConnectionLost:
    """The error with its remedy, where one is known."""
    if isinstance(error, ConnectionLost):
        return error
    code = getattr(error, "code", None)
    name = getattr(error, "name", "") or type(error).__name__
    if isinstance(code, int):
        remedy = _REMEDIES.get(name, "").format(own=config.pki / "own" / "certificate.der")
        return ConnectionLost(f"{config.url}: {name}{': ' + remedy if remedy else f' ({error})'}", code, name)
    if isinstance(error, AssertionError):  # the library's way to say that no secure channel came about
        return ConnectionLost(f"{config.url}: {_NO_CHANNEL.format(own=config.pki / 'own' / 'certificate.der')}")
    if isinstance(error, ConnectionRefusedError | TimeoutError):
        return ConnectionLost(f"cannot reach {config.url}: {_words(error)}: is the server up, is `url` right?")
    return ConnectionLost(f"{config.url}: {_words(error)}")


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
