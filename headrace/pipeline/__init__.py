"""The pipeline file: ``pipeline.toml`` as types, with every mistake reported at once."""

from headrace.pipeline.load import load, parse
from headrace.pipeline.model import Pipeline
from headrace.pipeline.tables import Column, Table, all_tables, all_topics, into, stream_topic

__all__ = ["Column", "Pipeline", "Table", "all_tables", "all_topics", "into", "load", "parse", "stream_topic"]
