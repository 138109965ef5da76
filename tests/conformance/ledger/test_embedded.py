from conformance.ledger.embedded import EmbeddedHarness
from conformance.ledger.harness import Spec


async def test_smoke():
    async with EmbeddedHarness().open(Spec()) as net:
        await net.run("probe.put", key="a", value="b")
        assert await net.get("a") == "b"
