"""What users test their own pipeline files with: readings in, windows out, without broker, store or clock.

It is the one module here that reaches up into a stage, so nothing else in this package imports it.

>>> from headrace.testing import windows_of
>>> PIPELINE = '''
... [topics.meters]
... time = { format = "epoch_s" }
... fields = { current = "float" }
... [streams.meters_10s]
... from = "meters"
... window = { kind = "tumbling", size = "10s" }
... aggregates = { current = ["max"] }
... '''
>>> [window["current_max"] for window in windows_of(PIPELINE, "meters_10s", [{"device": "a", "ts": 3, "current": 7.5}])]
[7.5]
"""

from processors.testing import Late, Reading, StreamRun, Window, windows_of

__all__ = ["Late", "Reading", "StreamRun", "Window", "windows_of"]
