"""Starts an application and keeps it running while its broker comes and goes.

A broker that restarts may fence its consumers, fail a commit or end a transaction; one that has just made a topic
may not know it yet, or who leads it. Everything that was not committed is read again, so the application is simply
built again from the last commit, when the broker is back; and starting is tried again as running is.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import KafkaException

from headrace.errors import BrokerError, HeadraceError
from headrace.exhaustion import exhausted
from headrace.runtime.microbatch import MicroBatchApplication
from headrace.runtime.quix import QuixException, TopicNameLengthExceeded, TopicPermissionError
from headrace.topics import wait_for_broker

log = logging.getLogger("headrace.runtime")

PATIENCE_S = 60.0
TRIES = 6
FIRST_PAUSE_S = 0.25
"""How long to wait before the second try; before each further one twice as long."""

Made = TypeVar("Made")
_FOR_GOOD = (TopicNameLengthExceeded, TopicPermissionError)


def keep_running(broker: str, build: Callable[[], MicroBatchApplication]) -> None:
    """Run what ``build`` makes until it is asked to stop, building it again when the broker fails it.

    Raises BrokerError when it fails ``TRIES`` times within ``PATIENCE_S``, or for good, and whatever else the
    application raises.
    """
    collect_seldom()
    patience = _Patience(broker)
    while True:
        _leave_when_asked()
        app: MicroBatchApplication | None = None
        try:
            app = build()
            app.run()
        except (KafkaException, QuixException) as error:
            # The one that has failed would take note of a signal, and nobody would leave.
            _leave_when_asked()
            if app is not None and app.asked_to_stop:
                log.warning("the last commit failed; what it held is read again", extra={"reason": str(error)})
                return
            patience.failed(error, "starting again from the last commit" if app is not None else "starting again")
        else:
            return


def _leave_when_asked() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)


def start(broker: str, begin: Callable[[], Made]) -> Made:
    """What ``begin`` gives, which is tried again when the broker fails it. Raises as :func:`keep_running` does."""
    patience = _Patience(broker)
    while True:
        try:
            return begin()
        except (KafkaException, QuixException) as error:
            patience.failed(error, "starting again")


class _Patience:
    """How often the broker may fail, and how long to wait after that."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._failures: deque[float] = deque(maxlen=TRIES)

    def failed(self, error: KafkaException | QuixException, then: str) -> None:
        """Wait for the broker, and a little longer each time. Raises what must reach the user."""
        reason = _reason(error)
        if isinstance(reason, HeadraceError):
            raise reason from None
        now = time.monotonic()
        while self._failures and now - self._failures[0] > PATIENCE_S:
            self._failures.popleft()
        self._failures.append(now)
        if isinstance(reason, _FOR_GOOD):
            raise BrokerError(f"the broker refuses: {reason}", hint="change what it names, and start again") from None
        if len(self._failures) == TRIES:
            raise BrokerError(
                f"the broker failed {TRIES} times within {PATIENCE_S:.0f} s, last with: {reason}",
                hint="if it says `fenced`, another process has the same --instance; else look at the broker's log",
            ) from None
        log.warning(then, extra={"reason": str(reason)})
        time.sleep(FIRST_PAUSE_S * 2 ** (len(self._failures) - 1))
        wait_for_broker(self._broker)


def collect_seldom() -> None:
    """Let the garbage collector look seldom, and not at what is there for good.

    A micro-batch makes and frees thousands of messages by reference counts alone. At Python's threshold of
    700 the collector goes over them all the time, in vain: it doubled the cost of polling.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _reason(error: BaseException) -> BaseException:
    """What a rebalance callback wraps: our own errors must reach the user as they are."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, HeadraceError):
            return cause
        cause = cause.__cause__
    # A full disk is no fault of the broker's, and trying again finds it full.
    return exhausted(error) or error


def _leave(*_: object) -> None:
    sys.exit(0)
