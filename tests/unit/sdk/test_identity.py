"""Simulated devices that sign: with the files that `flexrelay device add` makes, so that a gateway believes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from flexrelay.commissioning.devicekeys import proven_operation
from flexrelay.ingest import NativeCodec
from flexrelay_adapters.mqtt.simulator import make_simulator
from flexrelay_schemas.keys import verify
from flexrelay_sdk import Frame
from flexrelay_sdk.simulation import Battery, DeviceSimulator, Plan, SimulatedIdentity

CONTROLLER = "did:flexrelay:pilot:zQmYtUc4iTCbbfVSDNKvtQqrfyezPPnFvE33wFmutw9PBBk"
T0 = 1_463_738_400_000


def written(folder: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    """The key's file and operation; the public key as the ledger knows it."""
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "battery-1.pem").write_bytes(pem)
    operation, _, _ = proven_operation(folder, "battery-1", "pilot", CONTROLLER)
    return operation.key


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_a_gateway_verifies_what_it_signs(tmp_path: Path, kind: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1()) if kind == "p256" else ed25519.Ed25519PrivateKey.generate()
    public = written(tmp_path, key)
    identity = SimulatedIdentity.read(tmp_path, "battery-1")
    device = DeviceSimulator("battery-1", Battery(T0))
    for number in range(1, 4):
        payload = identity.signed(device.sample(T0 + number * 1000))
        decoded = NativeCodec().decode(Frame("mqtt", identity.scid, payload, T0))
        (measurement,), proof = decoded.measurements, decoded.proof
        assert (measurement.did, measurement.seq, measurement.observed_at) == (identity.did, number, T0 + number * 1000)
        assert proof is not None and verify(public, proof.signature, proof.message)
        assert not verify(public, proof.signature, proof.message + b"x")


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    device = DeviceSimulator("battery-1", Battery(T0))
    section = {"identities": "keys"}
    with pytest.raises(ValueError, match=r"^identities: .*battery-1\.json"):
        make_simulator(section, tmp_path, [device], Plan(T0, T0), "s")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "battery-1.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^identities: .*battery-1\.json holds no create operation"):
        make_simulator(section, tmp_path, [device], Plan(T0, T0), "s")
    (tmp_path / "keys" / "battery-1.json").unlink()
    written(tmp_path / "keys", ec.generate_private_key(ec.SECP256R1()))
    make_simulator(section, tmp_path, [device], Plan(T0, T0), "s")
    (tmp_path / "keys" / "battery-1.pem").write_text("no key")
    with pytest.raises(ValueError, match=r"^identities: "):
        make_simulator(section, tmp_path, [device], Plan(T0, T0), "s")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"port": 0}, "^port: "),
        ({"readings": ["a/+/{device}"]}, "must not hold"),
        ({"readings": ["a/b"]}, "needs the level"),
        ({"results": None}, "belong together"),
        ({"nonsense": 1}, "^nonsense is not a known key"),
    ],
)
def test_settings_that_make_no_sense_are_named(tmp_path: Path, change: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_simulator(change, tmp_path, [], Plan(T0, T0), "s")
