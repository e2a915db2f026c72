"""Readings to windows, in event time."""
