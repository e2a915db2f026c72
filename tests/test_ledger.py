"""The ledger adds up, and says so when it does not."""

from __future__ import annotations

from headrace.ledger import Entry, add_up, tally
from headrace.wire import Refused

SINK = {"messages": 10, "read": 8, "stored": 7, "duplicate": 1, "refused:nan": 2}
STREAM = {"messages": 10, "read": 8, "windowed": 5, "late": 2, "filtered": 1, "refused:nan": 2}


def test_partitions_of_a_stage_are_summed() -> None:
    entries = [Entry("sinks", "t", "t", 0, 10, SINK), Entry("sinks", "t", "t", 1, 10, SINK)]
    (line,) = add_up(entries, {("t", 0): 10, ("t", 1): 13})
    assert (line.produced, line.behind, line.messages, line.readings, line.refused) == (23, 3, 20, 16, 4)
    assert line.sound
    assert line.upto == {0: 10, 1: 10}


def test_a_stream_and_a_sink_are_lines_of_their_own() -> None:
    entries = [Entry("sinks", "t", "t", 0, 10, SINK), Entry("processors", "s", "t", 0, 10, STREAM, watermark_us=5)]
    lines = {line.stage: line for line in add_up(entries, {("t", 0): 10})}
    assert lines["processors"].watermark_us == 5
    assert all(line.sound for line in lines.values())


def test_a_reading_that_nobody_accounts_for_is_a_gap() -> None:
    (line,) = add_up([Entry("sinks", "t", "t", 0, 10, {**SINK, "stored": 6})], {("t", 0): 10})
    assert line.gap == 1
    assert not line.sound
    (line,) = add_up([Entry("processors", "s", "t", 0, 10, {**STREAM, "late": 0})], {("t", 0): 10})
    assert line.gap == 2
    assert not line.sound


def test_a_message_that_was_never_read_is_missed() -> None:
    (line,) = add_up([Entry("sinks", "t", "t", 0, 12, SINK)], {("t", 0): 12})
    assert line.missed == 2
    assert not line.sound


def test_transaction_markers_are_gaps_and_no_loss() -> None:
    counts: dict[str, int] = {}
    tally(counts, messages=8, covered=10, refused=[Refused(0, "nan", "")])
    assert counts == {"messages": 8, "gaps": 2, "refused:nan": 1}
    (line,) = add_up([Entry("sinks", "t", "t", 0, 10, {**counts, "read": 7, "stored": 7})], {("t", 0): 10})
    assert line.sound


def test_what_a_store_does_not_keep_is_accounted_for_as_dropped() -> None:
    counts = {**SINK, "stored": 5, "dropped:retention": 2}
    (line,) = add_up([Entry("sinks", "t", "t", 0, 10, counts)], {("t", 0): 10})
    assert line.dropped == 2
    assert line.sound
