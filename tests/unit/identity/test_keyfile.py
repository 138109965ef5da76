"""Key files: encrypted, private, written once; errors that never tell a secret."""

import base64
import os
import pickle
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from flexrelay.identity import pkcs8
from flexrelay.identity.keyfile import Algorithm, KeyBox, KeyFileError, LocalSigner, PrivateKey, generate
from flexrelay_schemas.keys import multikey, verify

PASSPHRASE = SecretStr("correct horse battery staple")


def write_key(path: Path, private: PrivateKey, passphrase: SecretStr) -> None:
    KeyBox(passphrase).write(path, private)


def read_key(path: Path, passphrase: SecretStr) -> PrivateKey:
    return KeyBox(passphrase).read(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key.pem"


@pytest.mark.parametrize("algorithm", ["p256", "ed25519"])
async def test_a_key_comes_back_and_signs(path: Path, algorithm: Algorithm) -> None:
    private = generate(algorithm)
    write_key(path, private, PASSPHRASE)
    signer = LocalSigner(read_key(path, PASSPHRASE), "did:x", 3)
    assert signer.public_key == multikey(private.public_key())
    signature = await signer.sign(b"message")
    assert len(signature) == 64
    assert verify(signer.public_key, signature, b"message")
    assert not verify(signer.public_key, signature, b"other")


def test_files_are_private_and_hold_no_clear_key(path: Path) -> None:
    old = os.umask(0)
    try:
        private = generate()
        write_key(path, private, PASSPHRASE)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    data = path.read_bytes()
    assert data.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("algorithm", ["p256", "ed25519"])
def test_other_tools_open_it(path: Path, algorithm: Algorithm) -> None:
    private = generate(algorithm)
    write_key(path, private, PASSPHRASE)
    again = serialization.load_pem_private_key(path.read_bytes(), PASSPHRASE.get_secret_value().encode())
    assert multikey(again.public_key()) == multikey(private.public_key())  # type: ignore[arg-type]


def test_keys_of_other_tools_open_here(path: Path) -> None:
    private = generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSPHRASE.get_secret_value().encode()),
    )
    path.write_bytes(pem)
    path.chmod(0o600)
    assert multikey(read_key(path, PASSPHRASE).public_key()) == multikey(private.public_key())


def test_a_wrong_passphrase_is_said_without_telling_it(path: Path) -> None:
    write_key(path, generate(), PASSPHRASE)
    with pytest.raises(KeyFileError, match="passphrase is wrong") as caught:
        read_key(path, SecretStr("hunter2-wrong"))
    shown = f"{caught.value!r} {caught.value} {caught.value.__cause__} {caught.value.__context__}"
    assert "hunter2" not in shown and "horse" not in shown
    assert str(path) in shown


def test_an_existing_key_is_never_overwritten(path: Path) -> None:
    write_key(path, generate(), PASSPHRASE)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="never overwritten"):
        write_key(path, generate(), PASSPHRASE)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602])
def test_a_key_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    write_key(path, generate(), PASSPHRASE)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_key(path, PASSPHRASE)


def test_what_is_no_encrypted_key_file(path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        read_key(path, PASSPHRASE)
    clear = generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for data in (b"", b"hello", clear, b"x" * 100_000):
        path.write_bytes(data)
        path.chmod(0o600)
        with pytest.raises(KeyFileError, match="not an encrypted PKCS#8"):
            read_key(path, PASSPHRASE)


def test_a_damaged_file(path: Path) -> None:
    write_key(path, generate(), PASSPHRASE)
    data = path.read_bytes()
    box = KeyBox(PASSPHRASE)
    for cut in range(0, len(data) - 40, 7):
        path.write_bytes(data[:cut])
        with pytest.raises(KeyFileError):
            box.read(path)


def test_one_derivation_for_all_files_of_a_box(tmp_path: Path) -> None:
    box = KeyBox(PASSPHRASE)
    paths = [tmp_path / f"{number}.pem" for number in range(20)]
    for path in paths:
        box.write(path, generate())
    salts = {pkcs8.salt_of(base64.b64decode(b"".join(path.read_bytes().split(b"\n")[1:-2]))) for path in paths}
    assert len(salts) == 1 and None not in salts
    assert len({path.read_bytes() for path in paths}) == 20
    again = KeyBox(PASSPHRASE)
    for path in paths:
        again.read(path)
    assert repr(again) == "KeyBox()"


@given(plain=st.binary(min_size=1, max_size=400), flip=st.integers(0, 10_000))
def test_wrapping_is_undone_and_no_other_bytes_are_taken_for_it(plain: bytes, flip: int) -> None:
    key, salt, iv = b"k" * 32, b"s" * 16, b"i" * 16
    data = pkcs8.wrap(plain, key, salt, iv)
    assert pkcs8.salt_of(data) == salt
    assert pkcs8.unwrap(data, key) == plain
    changed = bytearray(data)
    changed[flip % len(data)] ^= 1
    try:
        opened = pkcs8.unwrap(bytes(changed), key)
    except ValueError:
        return
    assert opened != plain or pkcs8.salt_of(bytes(changed)) != salt  # another salt gives another key


def test_keys_of_another_kind(path: Path) -> None:
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSPHRASE.get_secret_value().encode()),
    )
    path.write_bytes(other)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="P-256 and Ed25519"):
        read_key(path, PASSPHRASE)


def test_an_empty_passphrase_and_a_missing_folder(path: Path) -> None:
    with pytest.raises(KeyFileError, match="passphrase is empty"):
        write_key(path, generate(), SecretStr(""))
    with pytest.raises(KeyFileError, match="cannot write"):
        write_key(path.parent / "none" / "key.pem", generate(), PASSPHRASE)
    assert list(path.parent.iterdir()) == []


def test_a_signer_shows_and_gives_away_no_key() -> None:
    signer = LocalSigner(generate(), "did:x", 1)
    assert repr(signer) == "LocalSigner(did:x#v1)"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(signer)


def test_openssl_opens_it(path: Path) -> None:
    write_key(path, generate(), PASSPHRASE)
    environment = {**os.environ, "PASS": PASSPHRASE.get_secret_value()}
    try:
        done = subprocess.run(
            ["openssl", "pkey", "-in", str(path), "-passin", "env:PASS", "-noout", "-check"],
            env=environment,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        return  # the same is shown with the library above
    assert done.returncode == 0, done.stderr
