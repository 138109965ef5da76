"""Markets on the ledger. What a market is, is data (`flexrelay_schemas.product`); the rules they name are here.

- money and power: `accounts` (postings, balances), `reservations` and `portfolio` (what connections may sell)
- every market: `products` (registry), `terms` (shared checks)
- congestion: `auctions` (status key, gate), `prognosis`, `request`, `options` and `offer`, `opening` of sealed
  offers, `clearing`, `orders`, `metering` (whose meters measure an order)
- after delivery: `settlement`, `lines` (the computation), `payment` (the transfers), `dispute`, `judgement` (who wins)
- local energy and balance: `local_energy`, `local_clearing`, `positions`, `imbalance`
"""
