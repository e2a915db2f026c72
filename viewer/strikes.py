"""Who may not come back yet: addresses whose pages have made the engine end, longer each time.

>>> strikes = Strikes()
>>> strikes.add("192.0.2.7", now=0.0), strikes.wait_s("192.0.2.7", now=0.0)
(None, 0.0)
>>> strikes.add("192.0.2.7", now=10.0), strikes.wait_s("192.0.2.7", now=11.0), strikes.wait_s("::1", now=11.0)
(None, 3.0, 0.0)
"""

from __future__ import annotations

FORGOTTEN_S = 600.0
"""A page that keeps quiet for so long begins again."""
FIRST_WAIT_S = 4.0
MOST_WAIT_S = 300.0
MOST_ADDRESSES = 10_000


class Strikes:
    """By address, how often its pages have made the engine end, and when last."""

    def __init__(self) -> None:
        self._struck: dict[str, tuple[int, float]] = {}

    def add(self, address: str, now: float) -> None:
        """Once more. The first time has no consequence: anyone can ask for too much."""
        count, last = self._struck.pop(address, (0, now))
        if len(self._struck) >= MOST_ADDRESSES:
            del self._struck[next(iter(self._struck))]
        self._struck[address] = (1 if now - last > FORGOTTEN_S else count + 1), now

    def wait_s(self, address: str, now: float) -> float:
        """How long the address must wait before it may connect; 0 if it may."""
        count, last = self._struck.get(address, (0, now))
        if count < 2:
            return 0.0
        wait_s = min(FIRST_WAIT_S * 2.0 ** (count - 2), MOST_WAIT_S)
        return max(0.0, last + wait_s - now)
