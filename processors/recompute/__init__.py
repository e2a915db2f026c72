"""Windows computed again from stored readings, pure: what healing, backfill, verification and replay are made of.

- ``in_time``: a stream's windows over readings that come in order and in time
- ``boundaries``: from which reading on the windows of a span can be computed
- ``recompute``: the windows of a span of event time
- ``differences``: those held against the ones that are stored
"""
