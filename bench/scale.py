"""``scale``: two processors on a topic of four partitions beside one, which only two free cores can show."""

from __future__ import annotations

import os
from collections.abc import Callable

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from rich.console import Console

from bench.brokers import Broker
from bench.by_ledger import covered
from bench.measured import Line, Run, lines
from bench.options import Options
from bench.rounds import rounds
from bench.streams import TOPIC, Stream, processors
from bench.topic import Readings, fill
from bench.windows import Windows, check
from headrace.topics import CLIENT

PARTITIONS = 4
DEVICES = 8
FACTOR = 4
"""So many times the readings of other benches: the second process joins while the first one reads."""

WINDOWS = Windows("tumbling")


def run(broker: Broker, options: Options, console: Console) -> list[Line]:
    """Measure one process and two, while each has its share of the partitions and none has come to its end."""
    readings = Readings.lately(options.readings * FACTOR, DEVICES, partitions=PARTITIONS)
    Stream("fill", WINDOWS, partitions=PARTITIONS).make_topics(broker)
    console.print(f"scale: producing {readings.count:,} readings to {PARTITIONS} partitions on {broker.name}")
    fill(broker.address, TOPIC, readings)
    subjects: dict[str, Callable[[int], Run]] = {
        "1 process": lambda n: _measure(broker, readings, 1, n),
        "2 processes": lambda n: _measure(broker, readings, 2, n),
    }
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shared = ", which the broker shares: that many are not free" if cores < 3 else ""
    return lines(
        "scale",
        rounds("scale", subjects, options.repeat, console),
        {"one_process": "1 process"},
        {"2 processes": f"on {cores} cores{shared}"},
    )


def _measure(broker: Broker, readings: Readings, processes: int, number: int) -> Run:
    stream = Stream(f"{processes}-processes-{number}", WINDOWS, partitions=PARTITIONS)
    admin = AdminClient({**CLIENT, "bootstrap.servers": broker.address})
    with processors(broker, stream, processes) as running:
        run = covered(broker, stream, readings, running, ready=lambda: _shared(admin, stream.group, processes)).run
    check(broker.address, stream.into, WINDOWS, readings, WINDOWS.closed(readings, readings.count))
    return run


def _shared(admin: AdminClient, group: str, processes: int) -> bool:
    """Whether each process has its share of the partitions."""
    try:
        described = admin.describe_consumer_groups([group], request_timeout=10)[group].result(timeout=10)
    except KafkaException as error:
        if error.args[0].retriable():
            return False
        raise
    shares = [
        # The changelog's partitions are assigned along with them.
        sum(of.topic == TOPIC for of in member.assignment.topic_partitions) if member.assignment else 0
        for member in described.members
    ]
    return shares == [PARTITIONS // processes] * processes
