"""The micro-batch runtime: Quix Streams with rows that are batches of messages."""

import warnings

# A library under Quix warns of its own future on import, past any filter; it says nothing to a user of ours.
with warnings.catch_warnings(record=True):
    from headrace.runtime.batches import MicroBatch, Outgoing, Passed
    from headrace.runtime.consumption import Consumption
    from headrace.runtime.fencing import FencedState
    from headrace.runtime.limits import DeclaredLimits, Limits, dead_letter, size_of
    from headrace.runtime.microbatch import MicroBatchApplication
    from headrace.runtime.supervision import keep_running, start

__all__ = [
    "Consumption",
    "DeclaredLimits",
    "FencedState",
    "Limits",
    "MicroBatch",
    "MicroBatchApplication",
    "Outgoing",
    "Passed",
    "dead_letter",
    "keep_running",
    "size_of",
    "start",
]
