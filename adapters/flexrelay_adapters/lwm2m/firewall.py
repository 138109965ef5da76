"""Who is heard: addresses of plain CoAP by network, credentials until the gateway says that it does not take them."""

import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

_REMEMBERED: Final = 65_536
NOT_TAKEN: Final = frozenset(
    {"unknown_device", "not_permitted", "device_suspended", "device_deactivated", "no_identity"}
)
"""Reasons of dead letters that are about the sender, not about what it sent."""


class Firewall:
    """Bounded memory: what it remembers of strangers goes when there are too many."""

    def __init__(self, allow: Sequence[str], refused_for_s: float, clock: Callable[[], float]) -> None:
        self._networks = [ipaddress.ip_network(text) for text in allow]
        self._refused_for_s = refused_for_s
        self._clock = clock
        self._hosts: dict[str, bool] = {}
        self._refused: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        """strangers (datagrams), refused (messages)."""

    def admits(self, host: str) -> bool:
        """Whether plain CoAP is taken from this address."""
        known = self._hosts.get(host)
        if known is None:
            try:
                address = ipaddress.ip_address(host.partition("%")[0])
            except ValueError:
                known = False
            else:
                if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
                    address = address.ipv4_mapped
                known = any(address in network for network in self._networks)
            if len(self._hosts) >= _REMEMBERED:
                self._hosts.clear()
            self._hosts[host] = known
        if not known:
            self.counts["strangers"] += 1
        return known

    def refuse(self, credential: str) -> None:
        """The gateway does not take this sender's readings."""
        if len(self._refused) >= _REMEMBERED:
            del self._refused[next(iter(self._refused))]
        self._refused[credential] = self._clock() + self._refused_for_s

    def refused(self) -> list[str]:
        """Who is turned away now."""
        now = self._clock()
        return [credential for credential, until in self._refused.items() if until > now]

    def refuses(self, credential: str) -> bool:
        if not self._refused:
            return False
        until = self._refused.get(credential)
        if until is None:
            return False
        if until <= self._clock():
            del self._refused[credential]
            return False
        self.counts["refused"] += 1
        return True
