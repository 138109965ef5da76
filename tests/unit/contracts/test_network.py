from support.network import Network


def test_bootstrapped_network_carries_actors_devices_and_master_data() -> None:
    net = Network.start()
    dso = net.actor("dso", org="dso")
    owner = net.actor("prosumer", org="agg-a")
    brp = net.actor("brp", org="agg-a")
    aggregator = net.actor("aggregator", org="agg-a")
    made = net.connection(
        "c1", dso=dso, owner=owner, meter=True, devices=["battery", "pv"], brp=brp, aggregator=aggregator
    )
    shown = net.ask("masterdata.show", connection="c1", date="2016-05-20")
    assert shown["meter"]["device"] == made.meter.did
    assert {item["device_kind"] for item in shown["devices"]} == {"battery", "pv"}
    assert shown["mandate"]["aggregator"] == aggregator.did
    assert [
        item["connection"] for item in net.ask("masterdata.connections", congestion_point="cp-1", date="2016-05-20")
    ] == ["c1"]
    net.rotate(owner)
    net.rotate(owner)
    net.device(owner)
    assert net.ask("identity.resolve", did=owner.did)["didDocumentMetadata"]["versionId"] == "3"
