"""Keeps an application running while its broker comes and goes.

A broker that restarts may fence its consumers, fail a commit or end a transaction. Everything that was not
committed is read again, so the application is simply built anew from the last commit, when the broker is back.
"""

from __future__ import annotations

import gc
import logging
import signal
import sys
import time
from collections import deque
from collections.abc import Callable

from confluent_kafka import KafkaException
from quixstreams.exceptions import QuixException

from headrace.errors import BrokerError, HeadraceError
from headrace.runtime.microbatch import MicroBatchApplication
from headrace.topics import wait_for_broker

log = logging.getLogger("headrace.runtime")

PATIENCE_S = 60.0
TRIES = 6


def keep_running(broker: str, build: Callable[[], MicroBatchApplication]) -> None:
    """Run what ``build`` makes until it is asked to stop, building it anew when the broker fails it.

    Raises BrokerError when it fails ``TRIES`` times within ``PATIENCE_S``, and whatever else the application
    raises.
    """
    collect_seldom()
    failures: deque[float] = deque(maxlen=TRIES)
    while True:
        app = build()
        try:
            app.run()
        except (KafkaException, QuixException) as error:
            reason = _reason(error)
            if isinstance(reason, HeadraceError):
                raise reason from None
            if app.asked_to_stop:
                log.warning("the last commit failed; what it held is read again", extra={"reason": str(reason)})
                return
            failures.append(time.monotonic())
            if len(failures) == TRIES and failures[-1] - failures[0] < PATIENCE_S:
                raise BrokerError(
                    f"the broker failed {TRIES} times within {PATIENCE_S:.0f} s, last with: {reason}",
                    hint="if it says `fenced`, another process has the same --instance; else look at the broker's log",
                ) from None
            log.warning("starting again from the last commit", extra={"reason": str(reason)})
        else:
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _leave)
        wait_for_broker(broker)


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
    return error


def _leave(*_: object) -> None:
    sys.exit(0)
