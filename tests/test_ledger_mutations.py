"""The ledger can fail: a line is broken in a hundred ways and more, and every one of them turns the verdict."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

import pytest
from ledger_line import MutableLine, copied
from ledger_mutations import Broken, broken, tampered
from native_kafka import KafkaPart

import headrace.verify


@pytest.fixture(scope="module")
def line(embedded_broker: KafkaPart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MutableLine]:
    """The line, and no second look at what stands still."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headrace.verify, "LOOK_AGAIN_AFTER_S", ())
        yield MutableLine(embedded_broker.address, "mutations", tmp_path_factory.mktemp("mutations"))


def test_what_is_not_broken_is_sound(line: MutableLine) -> None:
    assert line.verdict(line.pipeline, copied(line)).faults == []
    for pipeline, file, _ in (line.run_sinks(), line.run_both(), line.run_both(runs=2)):
        found = line.verdict(pipeline, file)
        assert found.faults == []
        assert all(one.counts["gaps"] == 4 for one in found.lines if one.topic == line.topic)


@pytest.mark.parametrize("fault", list(broken()), ids=lambda fault: fault.name)
def test_a_broken_stage_turns_the_verdict(line: MutableLine, fault: Broken) -> None:
    if fault.stage == "sinks":
        pipeline, file, struck = line.run_sinks(fault.plant)
    else:
        pipeline, file, struck = line.run_both(fault.plant, runs=fault.runs)
    assert struck, "it was never broken"
    assert line.verdict(pipeline, file).faults


def test_whatever_is_tampered_with_turns_the_verdict(line: MutableLine) -> None:
    tried, unseen = 0, []
    for change in tampered(line):
        file = copied(line)
        with contextlib.closing(sqlite3.connect(file)) as store, store:
            if change.statement:
                assert store.execute(change.statement).rowcount > 0, change.name
        with change.ledger(line):
            tried += 1
            if line.verdict(line.pipeline, file).sound:
                unseen.append(change.name)
    assert tried >= 50
    assert unseen == []
    assert line.verdict(line.pipeline, copied(line)).faults == []


def test_there_are_a_hundred(line: MutableLine) -> None:
    """How many ways there are is said by the tests' own names and number."""
    assert len(list(broken())) + len(list(tampered(line))) >= 100
