"""Processors that are suspended, woken and killed: a former owner cannot spoil what another has done since.

HEADRACE_SCHEDULES says how many random schedules are run for each guarantee (2 if absent); HEADRACE_PATIENCE how many
seconds a condition is waited for (60), where many are run beside something else.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from processor_line import MakeLine, Processor, ProcessorLine, last_readings, making_lines, message_of, readings, until

from headrace.ledger import Line
from headrace.topics import CLIENT, reaches, reader
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

DEVICES = 8
SESSION = ("--session", "3")
SCHEDULES = int(os.environ.get("HEADRACE_SCHEDULES", "2"))


@pytest.fixture
def lines(name: str, tmp_path: Path) -> Iterator[MakeLine]:
    with making_lines(name, tmp_path) as make:
        yield make


def all_committed(line: ProcessorLine) -> bool:
    consumer = reader(line.address)
    try:
        return line.committed() == {n: reach.end for n, reach in reaches(consumer, line.topic).items()}
    finally:
        consumer.close()


def commit_all(line: ProcessorLine) -> bool:
    """Commit the ends of the topic; not while the group has a member."""
    consumer = reader(line.address, group=line.group)
    try:
        ends = [TopicPartition(line.topic, n, reach.end) for n, reach in reaches(consumer, line.topic).items()]
        consumer.commit(offsets=ends, asynchronous=False)
    except KafkaException as error:
        assert error.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID
        return False
    finally:
        consumer.close()
    return True


def expire_all(line: ProcessorLine) -> None:
    """Let the broker delete all messages that there are, as its retention would."""
    consumer = reader(line.address)
    ends = [TopicPartition(line.topic, n, reach.end) for n, reach in reaches(consumer, line.topic).items()]
    consumer.close()
    admin = AdminClient({**CLIENT, "bootstrap.servers": line.address})
    for deleted in admin.delete_records(ends).values():
        deleted.result(timeout=30)


def test_one_that_was_suspended_cannot_spoil_what_another_has_done_since(broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(broker.address)
    line.send(readings(DEVICES, 4_000, every_ms=50))
    with ExitStack() as stack:
        first = stack.enter_context(line.processor("--batch", "3", *SESSION, instance="1"))
        line.await_more(first)
        first.process.send_signal(signal.SIGSTOP)
        assert not all_committed(line)
        second = stack.enter_context(line.processor(*SESSION, instance="2"))
        until(lambda: all_committed(line), "the commit of all there is", running=[second])
        second.kill()
        first.process.send_signal(signal.SIGCONT)
        line.send([*readings(DEVICES, 400, from_s=201, every_ms=50), *last_readings(DEVICES, 400)])
        line.await_windows([first])
        ledger = line.await_ledger([first])
    counted = line.counts()
    assert {name: ledger.counts[name] for name in counted} == counted
    assert not ledger.counts.get("gaps")


def test_what_was_committed_beyond_the_state_is_read_again(broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(broker.address)
    line.send(readings(DEVICES, 400, every_ms=50))
    with line.processor(*SESSION) as processor:
        line.await_more(processor)
        until(lambda: all_committed(line), "the commit of all there is", running=[processor])
        assert processor.stop() == 0
    line.send([*readings(DEVICES, 400, from_s=21, every_ms=50), *last_readings(DEVICES, 100)])
    until(lambda: commit_all(line), "the end of the processor's session")
    with line.processor() as processor:
        line.await_windows([processor])
        ledger = line.await_ledger([processor])
    assert ledger.messages == line.sent


def test_a_stream_that_is_added_begins_where_the_others_go_on(embedded_broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(embedded_broker.address)
    line.send(readings(DEVICES, 100, every_ms=50))
    with line.processor(*SESSION) as processor:
        until(lambda: all_committed(line), "the commit of all there is", running=[processor])
        assert processor.stop() == 0
    before, declared = line.sent, line.settings.pipeline.read_text()
    added = declared.replace(f"[streams.{line.stream}]", "[streams.added]")[declared.index("[streams.") :]
    line.settings.pipeline.write_text(declared + added)
    line.send([*readings(DEVICES, 100, from_s=6, every_ms=50), *last_readings(DEVICES, 100)])
    with line.processor(*SESSION) as processor:
        line.await_windows([processor])
        line.await_ledger([processor])

        def all_counted() -> Line | None:
            found = line.lines("added").get(line.topic)
            return found if found is not None and sum(found.upto.values()) == line.sent else None

        counted = until(all_counted, "the added stream's counts", running=[processor])
    assert counted.sound
    assert (counted.counts["skipped"], counted.messages) == (before, line.sent - before)


def test_the_state_outlives_messages_that_expire_unread(broker: KafkaPart, lines: MakeLine) -> None:
    line = lines(broker.address)
    line.send(readings(DEVICES, 100, every_ms=50))
    with line.processor(*SESSION) as processor:
        until(lambda: all_committed(line), "the commit of all there is", running=[processor])
        assert processor.stop() == 0
    unread = readings(DEVICES, 20, from_s=5, every_ms=50)
    line.send_messages((r.device.encode(), message_of(r), line.partition_of(r.device)) for r in unread)
    expire_all(line)
    line.send([*readings(DEVICES, 100, from_s=7, every_ms=50), *last_readings(DEVICES, 100)])
    with line.processor(*SESSION) as processor:
        line.await_windows([processor])
        ledger = line.await_ledger([processor])
    assert ledger.counts["expired"] == len(unread)


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_any_schedule_of_stops_and_kills_gives_the_windows_of_an_undisturbed_run(
    embedded_broker: KafkaPart, lines: MakeLine, guarantee: str, seed: int
) -> None:
    line, rng = lines(embedded_broker.address), random.Random(seed)
    with ExitStack() as stack:

        def started(instance: str) -> Processor:
            arguments = ("--batch", str(rng.choice((3, 50, 4_000))), *SESSION)
            return stack.enter_context(
                line.processor(*arguments, instance=instance, guarantee=guarantee, commit_s=rng.choice((0.05, 0.2, 1)))
            )

        running = {instance: started(instance) for instance in ("1", "2")}
        suspended: set[str] = set()
        for step in range(rng.randint(4, 7)):
            line.send(readings(DEVICES, rng.randint(50, 1_000), from_s=60.0 * step, every_ms=50))
            instance = rng.choice(("1", "2"))
            action = rng.choice(("stop", "stop", "kill", "wait")) if instance not in suspended else "continue"
            if action == "stop":
                running[instance].process.send_signal(signal.SIGSTOP)
                suspended.add(instance)
            elif action == "continue":
                running[instance].process.send_signal(signal.SIGCONT)
                suspended.discard(instance)
            elif action == "kill":
                running[instance].kill()
                running[instance] = started(instance)
            awake = [one for instance, one in running.items() if instance not in suspended]
            if awake and rng.random() < 0.6:
                # Long enough for another to have taken over, and to have committed.
                until(lambda: all_committed(line), "the commit of all there is", running=awake)
        for instance in sorted(suspended, key=lambda _: rng.random()):
            running[instance].process.send_signal(signal.SIGCONT)
        line.send(last_readings(DEVICES, 600))
        line.await_windows(list(running.values()))
        ledger = line.await_ledger(list(running.values()))
    counted = line.counts()
    assert {name: ledger.counts[name] for name in counted} == counted
