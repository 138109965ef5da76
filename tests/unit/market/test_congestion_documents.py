"""The congestion market's documents are what the contracts take; what a ledger gives back opens a sealed offer."""

from hashlib import sha256

from flexrelay.market.congestion import opening, sealed_offer
from flexrelay_contracts.market.offer import Contents, encoded, parse_contents
from flexrelay_contracts.market.opening import Opening
from flexrelay_contracts.market.options import Option, OptionConnection, OptionIsp

OPTION = Option(
    option_id="o1",
    price_nano_eur_per_wh=100_000,
    min_activation_percent=10,
    isps=(OptionIsp(isp=49, power_w=1_000),),
    connections=(OptionConnection(connection="a1", power_w=(1_000,)),),
)


def test_a_sealed_offer_is_taken_and_opened() -> None:
    contents_hash, data = sealed_offer([OPTION])
    contents = parse_contents(data, contents_hash)
    assert contents.options == (OPTION,)
    args = opening("the-auction", "offer-a", contents.model_dump(mode="json", exclude={"v"}))
    named = Opening.model_validate(args)
    again = encoded(Contents(salt=named.salt, options=named.options))
    assert sha256(again).hexdigest() == contents_hash


def test_the_hash_of_equal_options_tells_nothing() -> None:
    assert sealed_offer([OPTION])[0] != sealed_offer([OPTION])[0]
