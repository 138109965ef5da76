"""Keys and what is signed with them: key files, a wallet of identities, intents and role credentials.

`Signer` is the port: everything that signs asks one and never sees a private key. The `Wallet` keeps keys as encrypted
PKCS#8 files.
"""

from flexrelay.identity.credentials import issue_role_credential
from flexrelay.identity.intents import sign_intent
from flexrelay.identity.keyfile import KeyFileError, LocalSigner
from flexrelay.identity.signer import Signer
from flexrelay.identity.wallet import Identity, Wallet, WalletError

__all__ = [
    "Identity",
    "KeyFileError",
    "LocalSigner",
    "Signer",
    "Wallet",
    "WalletError",
    "issue_role_credential",
    "sign_intent",
]
