"""Headrace: sensor readings to event-time windows, a store and a live page.

The folder holds what the four stages (producers, processors, sinks, viewer) share, and the command line.
"""

__version__ = "0.1.0"
