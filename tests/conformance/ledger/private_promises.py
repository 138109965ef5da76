"""Private data: members read it, everybody has its hash, nobody finds it on the chain, a purge leaves no value."""

import base64
import hashlib

import pytest
from conformance.ledger.harness import Network, fresh

from flexrelay.ledger.port import Call, Committed, Prepared, Validation
from flexrelay_contracts.refusal import Refused

COLLECTION = "dso-agga"


class PrivatePromises:
    async def test_members_read_a_private_value(self, net: Network) -> None:
        key, value = fresh(), fresh("secret")
        await _put(net, key, value)
        for org in ("dso", "agga"):
            args = {"collection": COLLECTION, "key": key}
            assert await net.connect(org).evaluate("probe.private_get", args) == value

    async def test_others_are_refused_the_value(self, net: Network) -> None:
        key = fresh()
        await _put(net, key, "secret")
        args = {"collection": COLLECTION, "key": key}
        with pytest.raises(Refused) as caught:
            await net.connect("aggb").evaluate("probe.private_get", args)
        assert caught.value.code == "private_not_member"
        intent = net.intent("probe.private_copy", **args, out=fresh())
        with pytest.raises(Refused):
            await net.connect("aggb").prepare(Call(intent))
        with pytest.raises(Refused):
            await net.connect("dso").prepare(Call(intent, endorsing_orgs=("aggb", "dso")))

    async def test_everybody_has_the_hash(self, net: Network) -> None:
        key = fresh()
        await _put(net, key, "secret")
        for org in net.spec.orgs:
            assert await _hash(net, org, key) == hashlib.sha256(b"secret").hexdigest()

    async def test_neither_value_nor_key_nor_transient_is_in_the_envelope(self, net: Network) -> None:
        value = fresh("a-rather-long-secret")
        prepared = await _prepare(net, fresh(), value)
        for text in (value.encode(), value.encode().hex().encode(), base64.b64encode(value.encode())):
            assert text.rstrip(b"=") not in prepared.envelope

    async def test_nothing_is_visible_before_the_commit(self, net: Network) -> None:
        key = fresh()
        await _prepare(net, key, "secret")
        await net.run("probe.put", key=fresh(), value="v")
        assert await _hash(net, "dso", key) is None
        args = {"collection": COLLECTION, "key": key}
        assert await net.connect("dso").evaluate("probe.private_get", args) is None

    async def test_a_private_read_conflicts_with_a_write(self, net: Network) -> None:
        key, out, ledger = fresh(), fresh(), net.connect("dso")
        await _put(net, key, "one")
        intent = net.intent("probe.private_copy", collection=COLLECTION, key=key, out=out)
        prepared = await ledger.prepare(Call(intent))
        await _put(net, key, "three")
        assert (await net.commit(ledger, prepared)).validation is Validation.MVCC_READ_CONFLICT
        assert await net.get(out) is None
        assert (await net.commit(ledger, await ledger.prepare(Call(intent)))).validation is Validation.VALID
        assert await net.get(out) == "5"

    async def test_an_invalid_transaction_leaves_no_private_value(self, net: Network) -> None:
        key, intent_id = fresh(), fresh()
        await _put(net, key, "first")
        won = await _prepare(net, key, "second", intent_id)
        lost = await _prepare(net, key, "third", intent_id)
        ledger = net.connect("dso")
        await net.commit(ledger, won)
        assert (await net.commit(ledger, lost)).validation is Validation.MVCC_READ_CONFLICT
        args = {"collection": COLLECTION, "key": key}
        assert await ledger.evaluate("probe.private_get", args) == "second"

    async def test_a_purge_removes_the_value_for_everybody(self, net: Network) -> None:
        key = fresh()
        await _put(net, key, "secret")
        await net.run("probe.private_purge", collection=COLLECTION, key=key)
        args = {"collection": COLLECTION, "key": key}
        assert await net.connect("agga").evaluate("probe.private_get", args) is None
        assert await _hash(net, "aggb", key) is None
        await _put(net, key, "again")
        assert await net.connect("agga").evaluate("probe.private_get", args) == "again"

    async def test_an_unknown_collection_is_refused(self, net: Network) -> None:
        args = {"collection": "nowhere", "key": fresh()}
        with pytest.raises(Refused):
            await net.connect("dso").prepare(Call(net.intent("probe.private_put", **args), {"value": b"v"}))


async def _prepare(net: Network, key: str, value: str, intent_id: str = "") -> Prepared:
    intent = net.intent("probe.private_put", intent_id=intent_id, collection=COLLECTION, key=key)
    return await net.connect("dso").prepare(Call(intent, {"value": value.encode()}))


async def _put(net: Network, key: str, value: str) -> Committed:
    committed = await net.commit(net.connect("dso"), await _prepare(net, key, value))
    assert committed.validation is Validation.VALID
    return committed


async def _hash(net: Network, org: str, key: str) -> object:
    return await net.connect(org).evaluate("probe.private_hash", {"collection": COLLECTION, "key": key})
