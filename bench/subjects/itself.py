"""How a subject measures itself: from its first batch to its last, by the clock and by its own CPU seconds."""

from __future__ import annotations

import json
import resource
import time


class Watch:
    """Started when the first batch is there; ``say`` prints the run as a line of JSON."""

    def __init__(self) -> None:
        self._begun_s: float | None = None
        self._cpu_s = 0.0
        self._before = 0

    def started(self, readings: int) -> None:
        """The first ``readings`` readings are there: they are not counted, as they were waited for."""
        if self._begun_s is None:
            self._begun_s, self._cpu_s, self._before = time.perf_counter(), time.process_time(), readings

    def say(self, readings: int, *, children_cpu_s: float = 0.0) -> None:
        """All ``readings`` readings are done; its children, which have ended, took so many CPU seconds."""
        if self._begun_s is None:
            raise RuntimeError("nothing was measured")
        print(
            json.dumps(
                {
                    "readings": readings - self._before,
                    "seconds": time.perf_counter() - self._begun_s,
                    "cpu_s": time.process_time() - self._cpu_s + children_cpu_s,
                    "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
                }
            )
        )
