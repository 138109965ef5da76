"""Every transaction and query of the network, by name."""

from typing import Any

from flexrelay_contracts import calendar, evidence, gateways, grants, identity, intents, masterdata, network
from flexrelay_contracts.market import (
    accounts,
    auctions,
    clearing,
    dispute,
    imbalance,
    local_clearing,
    local_energy,
    metering,
    offer,
    opening,
    orders,
    portfolio,
    positions,
    products,
    prognosis,
    request,
    settlement,
)
from flexrelay_contracts.runtime import Query, Transaction

_MODULES: tuple[Any, ...] = (
    network,
    calendar,
    identity,
    grants,
    gateways,
    masterdata,
    intents,
    evidence,
    accounts,
    products,
    portfolio,
    auctions,
    prognosis,
    request,
    offer,
    opening,
    clearing,
    orders,
    metering,
    settlement,
    dispute,
    local_energy,
    local_clearing,
    positions,
    imbalance,
)

TRANSACTIONS: dict[str, Transaction[Any]] = {t.name: t for module in _MODULES for t in module.TRANSACTIONS}
QUERIES: dict[str, Query[Any]] = {q.name: q for module in _MODULES for q in module.QUERIES}
