"""Windows in event time, pure: a batch, a processing time and a state go in; results, counts and state come out.

No I/O, no clock, no randomness. Time is an argument, so everything here can be replayed and held to
properties. From the outside in:

- ``windowed``: the whole: a stream's windows over one partition, and ``state``: the same as bytes, and back
- ``watermark``: how far event time is, and which readings are late; ``late``: what these are missing from
- ``repeats``: which readings were seen before (``digest``: what a reading says, in 32 bits)
- ``waiting``: readings that wait until their place in the order is sure
- ``groups``: devices, and groups by something else
- the kinds: ``time_windows`` and ``count_windows`` (both are ``pane_windows``, with their ``open_panes``;
  ``alignment``, ``zoned``: where windows begin and end), ``segment_windows`` (session, state, event;
  ``segments``: where these are cut), ``sliding_windows`` (``sliding``)
- ``aggregates``: what is kept of a window's readings, and ``rows``: of all open windows
- ``spec``: what the stream asks for
"""

from processors.windows.operator import Outcome, WindowOperator
from processors.windows.spec import WindowSpec

__all__ = ["Outcome", "WindowOperator", "WindowSpec"]
