"""Frame counters of devices, to tell people how many uplinks never came."""

import logging
from collections import OrderedDict
from typing import Final

log = logging.getLogger(__name__)

_DEVICES: Final = 100_000


class Counters:
    """The newest counter of each device, in memory; the device that has been silent longest is forgotten first."""

    def __init__(self, name: str, modulus: int = 2**32) -> None:
        self._name = name
        self._modulus = modulus
        self._last: OrderedDict[str, int] = OrderedDict()
        self.missing = 0
        """Uplinks that gaps stand for, since the start."""
        self.restarts = 0
        """Counters that began anew: a join, a new battery."""

    def note(self, device: str, count: int) -> None:
        """A counter came. Where it goes back by less than half of its range, it has begun anew."""
        last = self._last.get(device)
        gap = (count - last) % self._modulus - 1 if last is not None else 0
        if gap > self._modulus // 2:
            self.restarts += 1
            log.info("%s: %s: the counter starts anew at %d", self._name, device, count)
        elif gap > 0:
            self.missing += gap
            log.info("%s: %s: %d uplinks are missing before %d", self._name, device, gap, count)
        self._last[device] = count
        self._last.move_to_end(device)
        if len(self._last) > _DEVICES:
            self._last.popitem(last=False)
