"""Discovery that waits for approval, certificates of devices, and what is told of one device, on a real site."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from support.readings import PlainCodec
from support.site import publish_today, site, until

from flexrelay.commissioning import CommissioningError, NewDevice, add_actor, enrol_device
from flexrelay.commissioning.certificates import bind_certificate, signing_request
from flexrelay.commissioning.condition import condition_of
from flexrelay.commissioning.discovery import approve_discovered, dismiss_discovered, list_discovered
from flexrelay.devices import discovered as discovered_module
from flexrelay_sdk import Frame, Outcome
from flexrelay_sdk.clock import wall_ms

pytestmark = pytest.mark.timeout(300)


class Telling:
    """An adapter's discovery as vendors may write it: only the part that is asked here."""

    protocol = "mqtt"

    def __init__(self, *told: str, fails: bool = False, hangs: bool = False) -> None:
        self.told, self.fails, self.hangs = told, fails, hangs

    async def discover(self) -> AsyncIterator[str]:
        for each in self.told:
            yield each
        if self.fails:
            raise RuntimeError("a fault of the vendor's")
        if self.hangs:
            await asyncio.Event().wait()


async def test_what_was_discovered_waits_for_approval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovered_module, "PATIENCE_S", 0.2)
    async with site(tmp_path / "data") as opened:
        gateway = opened.gateways["dso"]
        await add_actor(opened, "dso", "grid")
        adapters: dict[str, Any] = {
            "deaf": object(),
            "faulty": Telling("plant-1", fails=True),
            "slow": Telling("plant-2", "x" * 600, "a\x00b", "", hangs=True),
            "good": Telling("plant-2", "plant-3"),
        }
        assert await gateway.discovered.sweep(adapters, 1000) == 4
        found = await list_discovered(opened)
        assert [w.found.credential for w in found] == ["plant-1", "plant-2", "plant-3"]
        assert gateway.registry.identify("mqtt", "plant-2") is None, "nothing is let in by that"
        new = NewDevice("dso", "p2", "pv", "grid", unsigned=True)
        with pytest.raises(CommissioningError, match="was not discovered at dso"):
            await approve_discovered(opened, "mqtt", "plant-9", new)
        done = await approve_discovered(opened, "mqtt", "plant-2", new)
        bound = gateway.registry.identify("mqtt", "plant-2")
        assert bound is not None and bound.did == done.device.did
        await dismiss_discovered(opened, "dso", "mqtt", "plant-1")
        with pytest.raises(CommissioningError, match="was not discovered"):
            await dismiss_discovered(opened, "dso", "mqtt", "plant-9")
        await gateway.discovered.sweep(adapters, 2000)
        (left,) = await list_discovered(opened)
        assert (left.found.credential, left.found.first_seen, left.found.last_seen) == ("plant-3", 1000, 2000)
        assert len(await list_discovered(opened, dismissed=True)) == 2
        monkeypatch.setattr(discovered_module, "MOST", 5)
        await gateway.discovered.sweep({"many": Telling(*(f"flood-{n}" for n in range(100)))}, 3000)
        assert len(await list_discovered(opened, dismissed=True)) <= 5, "what is kept is bounded"


def issued(
    request: x509.CertificateSigningRequest, ca: ec.EllipticCurvePrivateKey, *, days: int = 30, public: Any = None
) -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
        .public_key(public or request.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
    )
    return builder.sign(ca, hashes.SHA256()).public_bytes(Encoding.PEM)


async def test_a_certificate_of_the_devices_own_key(tmp_path: Path) -> None:
    async with site(tmp_path / "data") as opened:
        await add_actor(opened, "dso", "grid")
        made = await enrol_device(opened, NewDevice("dso", "m1", "meter", "grid", credentials=(("mqtt", "plant"),)))
        other = await enrol_device(opened, NewDevice("dso", "m2", "meter", "grid"))
        request = x509.load_pem_x509_csr(await signing_request(opened, "m1", name="meter-1.example"))
        assert request.is_signature_valid
        with pytest.raises(CommissioningError, match="is not the current key of m1"):
            await signing_request(opened, "m1", key=other.key_file)
        ca, stranger = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        own = x509.load_pem_x509_csr(await signing_request(opened, "m2", name="ca"))
        authority = issued(own, ca, public=ca.public_key())
        good = issued(request, ca)
        for data, said in (
            (issued(request, ca, days=-1), "not now"),
            (issued(request, stranger), "not issued by that authority"),
            (issued(request, ca, public=stranger.public_key()), "not of the current key"),
            (b"-----BEGIN nothing", "cannot be read"),
            (b"\x30\x00", "cannot be read"),
        ):
            with pytest.raises(CommissioningError, match=said):
                await bind_certificate(opened, "m1", data, "lwm2m", authority=authority)
        bound = await bind_certificate(opened, "m1", good, "lwm2m", authority=authority)
        assert bound.credentials == (("mqtt", "plant"), ("lwm2m", "meter-1.example"))
        found = opened.gateways["dso"].registry.identify("lwm2m", "meter-1.example")
        assert found is not None and found.did == made.device.did


async def test_a_certificates_name_that_is_anothers_at_one_receiver_is_bound_at_none(tmp_path: Path) -> None:
    async with site(tmp_path / "data", ("agg", "dso")) as opened:
        await add_actor(opened, "agg", "owner")
        await add_actor(opened, "dso", "grid")
        taken = (("lwm2m", "meter-1.example"),)
        await enrol_device(opened, NewDevice("dso", "other", "meter", "grid", credentials=taken))
        new = NewDevice("agg", "m1", "meter", "owner", credentials=(("mqtt", "plant"),), receivers=("agg", "dso"))
        await enrol_device(opened, new)
        request = x509.load_pem_x509_csr(await signing_request(opened, "m1", name="meter-1.example"))
        certificate = issued(request, ec.generate_private_key(ec.SECP256R1()))
        with pytest.raises(CommissioningError, match=r"dso: lwm2m credential 'meter-1\.example' is bound to"):
            await bind_certificate(opened, "m1", certificate, "lwm2m")
        agg = opened.gateways["agg"]
        assert agg.registry.identify("lwm2m", "meter-1.example") is None
        record = agg.devices.named("m1")
        assert record is not None and record.credentials == (("mqtt", "plant"),)


async def test_what_is_told_of_a_device(tmp_path: Path) -> None:
    async with site(tmp_path / "data") as opened:
        gateway = opened.gateways["dso"]
        await publish_today(gateway)
        await add_actor(opened, "dso", "grid")
        new = NewDevice("dso", "b1", "battery", "grid", unsigned=True, credentials=(("lwm2m", "b-1"),))
        await enrol_device(opened, new)
        record = gateway.devices.named("b1")
        assert record is not None
        silent = (await condition_of(gateway, record)).to_json()
        names = ("last_seen", "quality", "battery_permille", "firmware")
        assert [silent[name] for name in names] == ["unknown"] * 4 and silent["protocols"] == ("lwm2m",)
        now = wall_ms()
        payload = f'{{"t": {now}, "seq": 1, "soc_permille": 421, "power_w": 5}}'.encode()
        bad = Frame("lwm2m", "b-1", b"{", now)
        receipts = await gateway.ingest.put([Frame("lwm2m", "b-1", payload, now), bad], PlainCodec())
        assert [receipt.outcome for receipt in receipts] == [Outcome.STORED, Outcome.DEAD_LETTER]

        async def taken() -> bool:
            return gateway.twin.position == gateway.journal.end

        await until(taken)
        told = await condition_of(gateway, record)
        assert (told.protocols, told.last_seen, told.battery_permille) == (("lwm2m",), now, 421)
        assert told.quality is not None and told.quality[0] == "gateway_attested"
        assert (told.dead_letters, len(told.newest_dead_letters), told.pending_commands) == (1, 1, ())
