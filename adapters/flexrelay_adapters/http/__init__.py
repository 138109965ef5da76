"""HTTP push: readings by POST, one or many, with token or client certificate; commands that devices fetch.

A 2xx means that the reading is on disk. `HttpConfig` is the whole configuration.
"""

from flexrelay_adapters.http.adapter import HttpAdapter
from flexrelay_adapters.http.config import HttpConfig
from flexrelay_adapters.http.factory import make_adapter

__all__ = ["HttpAdapter", "HttpConfig", "make_adapter"]
