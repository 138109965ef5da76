"""flexrelay: readings from devices into smart data models, and flexibility transactions onto a ledger."""
