"""What the processors have counted as closed, held against the windows in the topic that they write into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.ledger import STARTED_OVER, Line
from headrace.pipeline import Pipeline, into
from headrace.pipeline.model import Hopping, Tumbling
from headrace.pipeline.tables import of_one_device, repartition_topic
from headrace.verify.recount import Recount
from headrace.verify.verdict import Verdict


def windows_known(pipeline: Pipeline, line: Line, verdict: Verdict) -> bool:
    """Whether a line's stream is declared; a note if it is not."""
    if line.name in pipeline.streams:
        return True
    verdict.notes.append(f"stream {line.name} is in the ledger and no longer in the pipeline file")
    return False


def closes_windows(pipeline: Pipeline, line: Line) -> bool:
    """Whether a stream's windows close where this line was counted, and not behind a repartition topic."""
    return line.topic == (repartition_topic(pipeline, line.name) or pipeline.streams[line.name].source)


def check_windows(
    pipeline: Pipeline, line: Line, later: Sequence[Line], recounts: Mapping[str, Recount], verdict: Verdict
) -> None:
    """That the windows in a stream's topic hold the readings that its processors say are in closed ones.

    The topic was read after ``line`` was counted and before ``later`` was, so it lies between them: at rest all are
    the same. (How the store's windows agree with the topic's is looked at where its rows are.)
    """
    stream, topic = pipeline.streams[line.name], recounts[into(pipeline, line.name)]
    one_window_each = isinstance(stream.window, Tumbling) and of_one_device(stream, pipeline.topics[stream.source])
    windowed, in_windows = line.counts.get("windowed", 0), sum(line.counts.get(n, 0) for n in ("in_closed", "in_open"))
    if one_window_each and windowed != in_windows:
        verdict.faults.append(
            f"stream {line.name}: {windowed} readings are in windows, and closed and open ones hold {in_windows}"
        )
    if line.counts.get(STARTED_OVER):
        verdict.notes.append(
            f"stream {line.name} was started over, and its topic may have windows from before: they are not compared"
        )
        return
    if not topic.whole:
        verdict.notes.append(f"stream {line.name}: its oldest windows have expired, so they are not compared")
        return
    # Where readings make the windows, two of a group may begin with readings of one time: only one is kept.
    may_share = not isinstance(stream.window, Tumbling | Hopping) and (
        stream.repeats == "keep" or not of_one_device(stream, pipeline.topics[stream.source])
    )
    [after] = [one for one in later if (one.stage, one.name, one.topic) == (line.stage, line.name, line.topic)]
    in_topic = topic.rows(topic.ends).readings()
    said, said_after = _in_results(line), _in_results(after)
    if after.behind and in_topic > said_after:
        verdict.notes.append(f"stream {line.name}: its windows are compared when nothing is behind")
    elif in_topic > said_after or (in_topic < said and not may_share):
        verdict.faults.append(
            f"stream {line.name}: windows with {said} readings closed; those in its topic hold {in_topic}"
        )


def _in_results(line: Line) -> int:
    """The readings in the closed windows that the stream's topic has taken."""
    return line.counts.get("in_closed", 0) - line.counts.get("in_too_large", 0)
