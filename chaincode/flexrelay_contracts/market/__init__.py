"""Markets: products, accounts, portfolios, auctions, settlement and disputes."""
