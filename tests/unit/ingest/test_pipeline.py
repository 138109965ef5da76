"""What becomes of a frame: stored, duplicate or dead letter, each after the commit."""

from pathlib import Path

from support.contracts import Party
from support.readings import NOW, frame_of, ingest_path, signed_payload

from flexrelay.ingest import NativeCodec
from flexrelay_schemas.quality import Provenance
from flexrelay_sdk import Outcome


async def test_a_signed_reading_is_stored_with_its_exact_bytes(tmp_path: Path) -> None:
    meter = Party.new("device", Party.new().did)
    async with ingest_path(tmp_path, meter) as path:
        payload = signed_payload(meter, NOW - 1000, {"import_j": 5, "export_j": 0}, 1)
        (receipt,) = await path.ingest.put([frame_of(meter.did, payload)], NativeCodec())
        assert (receipt.outcome, receipt.position) == (Outcome.STORED, 1)
        entry = await path.journal.entry(1)
        assert entry is not None
        assert (entry.payload, entry.evidence, entry.did, entry.signed) == (payload, payload, meter.did, True)
        (measurement,) = entry.measurements
        assert measurement.provenance is Provenance.METER_SIGNED
        assert measurement.registers == {"import_j": 5, "export_j": 0}
        (again,) = await path.ingest.put([frame_of(meter.did, payload)], NativeCodec())
        assert again.outcome is Outcome.DUPLICATE
        assert path.journal.end == 1
