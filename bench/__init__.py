"""Measures Headrace beside its peers: ``python -m bench [BENCH ...]``."""
