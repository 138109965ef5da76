"""Counts of one process, and their Prometheus text form (version 0.0.4)."""

import threading
from collections import Counter

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """Written by the threads that run calls and by the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        """Ended calls by outcome: "ok", "refused", or the code of the shim's rejection."""
        self.seconds = 0.0
        self._buckets = [0] * len(_BUCKETS_S)
        self.streams = 0
        self.ready = 0
        self.running = 0
        self.ignored = 0
        """Messages of a peer that fit nothing."""

    def ended(self, outcome: str, seconds: float) -> None:
        with self._lock:
            self.calls[outcome] += 1
            self.seconds += seconds
            for index, bound in enumerate(_BUCKETS_S):
                if seconds <= bound:
                    self._buckets[index] += 1
                    break

    def text(self) -> str:
        with self._lock:
            calls, buckets, seconds = sorted(self.calls.items()), list(self._buckets), self.seconds
        total = sum(count for _, count in calls)
        lines = ["# TYPE flexrelay_chaincode_calls_total counter"]
        lines += [f'flexrelay_chaincode_calls_total{{outcome="{name}"}} {count}' for name, count in calls]
        lines.append("# TYPE flexrelay_chaincode_call_seconds histogram")
        reached = 0
        for bound, count in zip(_BUCKETS_S, buckets, strict=True):
            reached += count
            lines.append(f'flexrelay_chaincode_call_seconds_bucket{{le="{bound}"}} {reached}')
        lines.append(f'flexrelay_chaincode_call_seconds_bucket{{le="+Inf"}} {total}')
        lines.append(f"flexrelay_chaincode_call_seconds_sum {seconds:.6f}")
        lines.append(f"flexrelay_chaincode_call_seconds_count {total}")
        gauges = {"streams": self.streams, "streams_ready": self.ready, "calls_running": self.running}
        for name, value in gauges.items():
            lines += [f"# TYPE flexrelay_chaincode_{name} gauge", f"flexrelay_chaincode_{name} {value}"]
        lines.append("# TYPE flexrelay_chaincode_messages_ignored_total counter")
        lines.append(f"flexrelay_chaincode_messages_ignored_total {self.ignored}")
        return "\n".join(lines) + "\n"
