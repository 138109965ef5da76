"""Acme hubs for flexrelay: readings and commands over the hub's line protocol."""

from flexrelay_acme_hub.adapter import AcmeHubAdapter
from flexrelay_acme_hub.config import AcmeHubConfig
from flexrelay_acme_hub.factory import make_adapter

__all__ = ["AcmeHubAdapter", "AcmeHubConfig", "make_adapter"]
