"""Windows in event time, pure: a batch, a processing time and a state go in; results, counts and state come out.

No I/O, no clock, no randomness. Time is an argument, so everything here can be replayed and held to
properties. From the outside in:

- ``operator``: a stream's windows over one partition, put together from ``input.intake`` (devices, groups, clocks; what
  is late, repeated, filtered), ``input.cuts``, ``windowing`` (``input.reorder_buffer`` and an engine) and ``emission``
- ``repartition``: the same for groups that span partitions, in two stages: ``local`` and ``merged``
- ``stage``: what all three have in common; ``state``: any of them as bytes, and back
- ``time``: clocks and watermarks; ``alignment``, ``zoned``: where windows along time begin and end
- ``input``: devices and groups, deduplication (``digest``, ``sorted_runs``), late readings
- ``kinds``: an ``engine`` for each: ``time_windows`` and ``count_windows`` (both are ``pane_windows``, with their
  ``open_panes``), ``segment_windows`` (session, state, event; ``segments``: where these are cut), ``sliding_windows``
- ``aggregates``: what is kept of a window's readings
- ``spec``: what the stream asks for
"""

from processors.windows.emission import Outcome
from processors.windows.operator import WindowOperator
from processors.windows.spec import WindowSpec

__all__ = ["Outcome", "WindowOperator", "WindowSpec"]
