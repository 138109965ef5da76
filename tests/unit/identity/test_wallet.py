"""The wallet: identities with pre-rotated keys, rotation in two steps, and what its files tell."""

import json
from pathlib import Path

import pytest
from pydantic import SecretStr
from support.network import Network
from support.refusals import refused

from flexrelay.identity import KeyFileError, LocalSigner, Wallet, WalletError, sign_intent
from flexrelay.identity.keyfile import Algorithm
from flexrelay_contracts.runtime import decode_intent
from flexrelay_schemas.did import Create, Rotate, key_hash, operation_hash, operation_message
from flexrelay_schemas.encoding import b64u_decode
from flexrelay_schemas.keys import verify

PASSPHRASE = SecretStr("correct horse battery staple")


@pytest.fixture
def wallet(tmp_path: Path) -> Wallet:
    return Wallet(tmp_path / "keys", PASSPHRASE)


@pytest.mark.parametrize("algorithm", ["p256", "ed25519"])
async def test_an_identity_proves_its_create_operation(wallet: Wallet, algorithm: Algorithm) -> None:
    identity = wallet.create("test", "actor", label="me", algorithm=algorithm)
    proven = await wallet.proven(identity.did)
    operation = Create.model_validate(proven["operation"])
    assert operation.did() == identity.did
    assert verify(operation.key, b64u_decode(proven["proof"]), operation_message(operation))
    assert wallet.signer(identity.did).public_key == operation.key


async def test_another_process_finds_the_same(wallet: Wallet, tmp_path: Path) -> None:
    made = [wallet.create("test", "actor", label=label) for label in ("b", "a")]
    device = wallet.create("test", "device", controller=made[0].did)
    again = Wallet(tmp_path / "keys", PASSPHRASE)
    assert [identity.label for identity in again.identities()] == ["", "a", "b"]
    assert again.find("b") == made[0]
    assert again.find("c") is None
    assert (again.get(device.did).kind, again.get(device.did).controller) == ("device", made[0].did)
    assert again.signer(made[1].did).public_key == wallet.signer(made[1].did).public_key


async def test_rotation_goes_by_the_pre_committed_key(wallet: Wallet) -> None:
    identity = wallet.create("test", "actor")
    committed = identity.operation.next_key_hash
    for version in (2, 3, 4):
        previous = wallet.get(identity.did).last_hash
        proven = await wallet.begin_rotation(identity.did)
        operation = Rotate.model_validate(proven["operation"])
        assert (operation.version, operation.previous) == (version, previous)
        assert key_hash(operation.key) == committed
        assert verify(operation.key, b64u_decode(proven["proof"]), operation_message(operation))
        assert wallet.signer(identity.did).key_version == version - 1
        assert (await wallet.begin_rotation(identity.did))["operation"] == proven["operation"]
        changed = wallet.finish_rotation(identity.did)
        assert (changed.version, changed.last_hash) == (version, operation_hash(operation))
        assert wallet.signer(identity.did).public_key == operation.key
        committed = operation.next_key_hash
    with pytest.raises(WalletError, match="no rotation"):
        wallet.finish_rotation(identity.did)


async def test_a_crash_between_the_next_key_and_its_name_loses_nothing(wallet: Wallet, tmp_path: Path) -> None:
    identity = wallet.create("test", "actor")
    path = next((tmp_path / "keys").glob("z*.json"))
    before = path.read_bytes()
    first = await wallet.begin_rotation(identity.did)
    path.write_bytes(before)  # the description was not written any more
    second = await Wallet(tmp_path / "keys", PASSPHRASE).begin_rotation(identity.did)
    assert first["operation"] == second["operation"]


async def test_the_ledger_takes_what_the_wallet_makes(wallet: Wallet) -> None:
    """Register, rotate, act with the new key: all through signed intents of the wallet's signers."""
    net = Network.start(days=0)
    identity = wallet.create("test", "actor")
    gateway = net.gateways["dso"].did
    creator = net.creators["dso"]

    async def act(function: str, args: dict[str, object], intent_id: str) -> None:
        signer = wallet.signer(identity.did)
        data = await sign_intent(signer, "test", function, args, net.ledger.now + 1000, intent_id)
        net.ledger.run(data, creator)

    await act("identity.register", await wallet.proven(identity.did) | {"gateway": gateway}, "i1")
    await act("identity.rotate", await wallet.begin_rotation(identity.did), "i2")
    with refused("key_version"):
        await act("gateways.grant", {"gateway": gateway}, "i3")
    wallet.finish_rotation(identity.did)
    await act("gateways.grant", {"gateway": gateway}, "i4")
    assert net.ask("identity.show", did=identity.did)["last_hash"] == wallet.get(identity.did).last_hash


async def test_a_signed_intent_reads_back(wallet: Wallet) -> None:
    identity = wallet.create("test", "actor")
    data = await sign_intent(wallet.signer(identity.did), "test", "market.offer", {"a": [1]}, 5, "i-1")
    signed = decode_intent(data)
    assert signed.intent.args == {"a": [1]}
    assert signed.encode() == data
    assert verify(identity.operation.key, signed.signature_bytes(), signed.intent.message())
    for bad in ({"function": "no dot"}, {"intent_id": "a b"}, {"args": {"x": 1.5}}, {"deadline_ms": -1}):
        given = {"network": "test", "function": "a.b", "args": {}, "deadline_ms": 1, "intent_id": "i"} | bad
        with pytest.raises(ValueError, match=r".+"):
            await sign_intent(wallet.signer(identity.did), **given)  # type: ignore[arg-type]


def test_errors_name_what_is_wrong(wallet: Wallet, tmp_path: Path) -> None:
    assert wallet.identities() == []
    identity = wallet.create("test", "actor", label="me")
    with pytest.raises(WalletError, match="labelled 'me'"):
        wallet.create("test", "actor", label="me")
    other = Wallet(tmp_path / "other", PASSPHRASE)
    with pytest.raises(WalletError, match="does not hold"):
        other.get(identity.did)
    with pytest.raises(WalletError, match="not a did:flexrelay"):
        wallet.get("../../etc/passwd")
    with pytest.raises(KeyFileError, match="passphrase is wrong"):
        Wallet(tmp_path / "keys", SecretStr("wrong")).signer(identity.did)


def test_damaged_and_swapped_descriptions(wallet: Wallet, tmp_path: Path) -> None:
    one, other = wallet.create("test", "actor"), wallet.create("test", "actor")
    folder = tmp_path / "keys"
    paths = {identity.did: folder / f"{identity.did.rsplit(':', 1)[1]}.json" for identity in (one, other)}
    good = paths[one.did].read_bytes()
    paths[one.did].write_bytes(paths[other.did].read_bytes())
    with pytest.raises(WalletError, match="another identity"):
        wallet.get(one.did)
    document = json.loads(good)
    document["operation"]["nonce"] = "0" * 32
    paths[one.did].write_text(json.dumps(document))
    with pytest.raises(WalletError, match="another identity"):
        wallet.get(one.did)
    paths[one.did].write_bytes(good[:40])
    with pytest.raises(WalletError, match="not the description"):
        wallet.identities()


def test_all_files_are_private_and_none_tells_the_passphrase(wallet: Wallet, tmp_path: Path) -> None:
    wallet.create("test", "actor", label="me")
    folder = tmp_path / "keys"
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert b"horse" not in path.read_bytes()
    assert "horse" not in repr(vars(wallet))


def test_key_files_that_were_swapped_or_flipped_are_noticed(wallet: Wallet, tmp_path: Path) -> None:
    identity = wallet.create("test", "actor", algorithm="ed25519")
    folder = tmp_path / "keys"
    first, following = sorted(folder.glob("*.pem"))
    good = first.read_bytes()
    first.write_bytes(following.read_bytes())
    with pytest.raises(WalletError, match="another key"):
        wallet.signer(identity.did)
    for place in range(40, len(good) - 45, 3):
        fresh = Wallet(folder, PASSPHRASE)
        first.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        try:
            signer = fresh.signer(identity.did)
        except (WalletError, KeyFileError):
            continue
        assert signer.public_key == identity.key and good[place : place + 1] == b"\n"  # other white space, same key


async def test_a_rotation_needs_the_key_that_was_committed_to(wallet: Wallet, tmp_path: Path) -> None:
    identity = wallet.create("test", "actor")
    first, following = sorted((tmp_path / "keys").glob("*.pem"))
    following.write_bytes(first.read_bytes())
    with pytest.raises(WalletError, match="committed"):
        await wallet.begin_rotation(identity.did)


def test_signers_are_opened_once(wallet: Wallet) -> None:
    identity = wallet.create("test", "actor")
    signer = wallet.signer(identity.did)
    assert isinstance(signer, LocalSigner)
    assert wallet.signer(identity.did) is signer
