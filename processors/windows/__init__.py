"""Windows in event time, pure: a batch, a processing time and a state go in; results, counts and state come out.

No I/O, no clock, no randomness. Time is an argument, so everything here can be replayed and held to
properties.

- ``watermark``: how far event time is, by device and partition, and which readings are late
- ``tumbling``: which window a reading belongs to
- ``accumulators``: the partial aggregates of open windows, as columns
- ``windowed``: the whole: a stream's windows over one partition
- ``state``: the same as bytes, in pieces, and back
"""

from processors.windows.windowed import Outcome, Windowed, WindowSpec

__all__ = ["Outcome", "WindowSpec", "Windowed"]
