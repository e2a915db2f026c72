"""Producers against a real broker: keyed, in their partitions, counted, and nothing lost at a stop or an outage."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headrace import topics
from headrace.broker.embedded import EmbeddedBroker
from headrace.duration import Duration
from headrace.pipeline import Pipeline, parse
from headrace.pipeline.model import Curve, Faults, Simulate
from headrace.wire import Decoder
from producers.__main__ import main
from producers.partition import partition_of
from producers.progress import Outcome
from producers.run import now_us, run
from producers.send import Sender
from producers.simulate import Simulation
from servers.kafka import KafkaPart

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
MACHINE = ROOT / "data" / "machine_temperature.csv"
DECLARED = """
[topics.{meters}]
fields = {{ current = "float", voltage = "int" }}
tags = {{ city = "text" }}
partitions = 4

[topics.{sensors}]
key = "sensor"
key_in = "message"
time = {{ format = "iso8601" }}
fields = {{ value = "int" }}
partitions = 3

[topics.{machine}]
fields = {{ value = "float" }}
partitions = 2

[producers.fleet]
kind = "simulate"
topic = "{meters}"
rate = 500
devices = 20
curves.current = {{ base = 10, swing = 2 }}
curves.city = {{ choices = ["Paris", "Lyon"] }}

[producers.sensors]
kind = "simulate"
topic = "{sensors}"
devices = 5
name = "Sensor{{n}}"
rate = 4

[producers.machine]
kind = "replay"
topic = "{machine}"
file = '{recording}'
time = {{ columns = ["timestamp"] }}
devices = 2
speed = 0
"""


@pytest.fixture
def file(name: str, tmp_path: Path) -> Path:
    """A pipeline file whose topics are this test's own."""
    names = {kind: f"{name}.{kind}" for kind in ("meters", "sensors", "machine")}
    text = DECLARED.format(**names, recording=MACHINE)
    for topic in names.values():
        text = text.replace(f"[topics.{topic}]", f'[topics."{topic}"]')
    path = tmp_path / "pipeline.toml"
    path.write_text(text)
    return path


@pytest.fixture
def pipeline(file: Path) -> Pipeline:
    return parse(file.read_text())


def topic_of(pipeline: Pipeline, kind: str) -> str:
    return next(name for name in pipeline.topics if name.endswith(f".{kind}"))


def messages(address: str, topic: str) -> list[Message]:
    """All messages of a topic, by partition and offset."""
    consumer = topics.reader(address, "look")
    try:
        wanted = {n: reach for n, reach in topics.reaches(consumer, topic).items() if reach.end > reach.begin}
        consumer.assign([TopicPartition(topic, n, reach.begin) for n, reach in wanted.items()])
        read: list[Message] = []
        last = dict.fromkeys(wanted, -1)
        while any(last[n] < reach.end - 1 for n, reach in wanted.items()):
            for message in consumer.consume(5_000, timeout=0.2):
                if message.error() is None:
                    read.append(message)
                    last[message.partition()] = message.offset()
                else:
                    assert message.error().code() == KafkaError._PARTITION_EOF
    finally:
        consumer.close()
    return sorted(read, key=lambda m: (m.partition(), m.offset()))


def simulated(broker: str, pipeline: Pipeline, **given: Any) -> Outcome:
    kind = str(given.pop("kind", "meters"))
    declared = Simulate(topic=topic_of(pipeline, kind), **{"start": "2024-01-01", "speed": 0, **given})
    source = Simulation("s", declared, pipeline.topics[declared.topic], now_us=now_us())
    [outcome] = run([source], Sender(broker, pipeline))
    return outcome


class Envelope:
    def __init__(self, read: list[Message]) -> None:
        self._read = read

    def timestamp_ms(self, place: int) -> int:
        return int(self._read[place].timestamp()[1])

    def key(self, place: int) -> bytes | None:
        key = self._read[place].key()
        assert isinstance(key, bytes)
        return key

    def all_keyed(self) -> bool:
        return True


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


@contextmanager
def started(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The producers as a process of their own, which does not outlive its test."""
    with subprocess.Popen(
        [sys.executable, "-m", "producers", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def count(address: str, topic: str) -> int:
    """How many messages a topic holds; 0 while it is being made."""
    consumer = Consumer({**topics.CLIENT, "bootstrap.servers": address, "group.id": "count"})
    try:
        return sum(reach.end - reach.begin for reach in topics.reaches(consumer, topic).values())
    except KafkaException as error:
        being_made = ("LEADER_NOT_AVAILABLE", "NOT_LEADER_FOR_PARTITION", "UNKNOWN_TOPIC_OR_PART")
        assert error.args[0].name() in being_made, error
        return 0
    finally:
        consumer.close()


@pytest.mark.parametrize("columns", [1, 50])
def test_every_reading_arrives_keyed_and_is_accounted_for(broker: KafkaPart, pipeline: Pipeline, columns: int) -> None:
    shares = dict.fromkeys(("late", "repeated", "missing", "out_of_order", "future", "malformed"), 0.02)
    wrong = Faults(**shares, late_by=Duration.parse("1s"))
    outcome = simulated(broker.address, pipeline, count=20_000, rate=1_000, devices=30, columns=columns, faults=wrong)
    counts = outcome.counts
    assert outcome.failed == 0
    assert counts["generated"] == 20_000 == counts["sent"] + counts["missing"] - counts["repeated"]
    assert outcome.delivered == counts["sent"]
    topic = topic_of(pipeline, "meters")
    read = messages(broker.address, topic)
    assert len(read) == outcome.messages
    # A day ahead of readings of the past is no future: only the malformed ones are refused.
    decoded = Decoder(pipeline.topics[topic]).decode([message.value() for message in read], Envelope(read))
    assert Counter(r.reason for r in decoded.refused) == {
        kind: counts[f"malformed_{kind}"] for kind in ("not_json", "wrong_type", "missing_field", "bad_time", "nan")
    }
    assert len(decoded.batch) == counts["sent"] - counts["malformed"]


def test_a_device_is_in_its_partition_whichever_shape_is_used(broker: KafkaPart, pipeline: Pipeline) -> None:
    one = simulated(broker.address, pipeline, count=2_000, devices=40)
    many = simulated(broker.address, pipeline, count=2_000, devices=40, columns=25)
    assert one.messages == 2_000 and many.messages < 200
    readings: dict[bool, list[tuple[str, int, float]]] = {True: [], False: []}
    for message in messages(broker.address, topic_of(pipeline, "meters")):
        value = json.loads(message.value())
        columnar = isinstance(value["device"], list)
        devices = value["device"] if columnar else [value["device"]]
        assert message.key() == devices[0].encode()
        assert {partition_of(device.encode(), 4) for device in devices} == {message.partition()}
        times, currents = (value[name] if columnar else [value[name]] for name in ("ts", "current"))
        readings[columnar] += zip(devices, times, currents, strict=True)
    assert sorted(readings[True]) == sorted(readings[False])


def test_a_device_that_is_only_the_key_is_not_in_the_value(broker: KafkaPart, pipeline: Pipeline) -> None:
    given = {"kind": "sensors", "devices": 5, "name": "Sensor{n}", "curves": {"value": Curve(base=40, noise=5)}}
    simulated(broker.address, pipeline, count=100, rate=4, **given)
    simulated(broker.address, pipeline, count=100, rate=4, columns=10, **given)
    read = messages(broker.address, topic_of(pipeline, "sensors"))
    assert {message.key() for message in read} == {f"Sensor{n}".encode() for n in (1, 2, 3, 4, 5)}
    values = [json.loads(message.value()) for message in read]
    assert {tuple(value) for value in values} == {("ts", "value")}
    single = [value for value in values if isinstance(value["ts"], str)]
    assert len(single) == 100 and all(isinstance(value["value"], int) for value in single)
    assert {len(value["ts"]) for value in single} == {len("2024-01-01T00:00:00.000000Z")}
    assert sum(len(value["ts"]) for value in values if isinstance(value["ts"], list)) == 100


def test_a_message_too_large_for_the_broker_is_counted_as_failed(broker: KafkaPart, pipeline: Pipeline) -> None:
    curves = {"city": Curve(choices=["x" * 1_200_000])}
    outcome = simulated(broker.address, pipeline, count=3, curves=curves)
    assert (outcome.failed, outcome.delivered, outcome.counts["sent"]) == (3, 0, 3)


def test_columns_too_large_for_a_message_are_sent_in_several(broker: KafkaPart, pipeline: Pipeline) -> None:
    curves = {"city": Curve(choices=["x" * 100_000])}
    outcome = simulated(broker.address, pipeline, count=64, devices=1, columns=64, curves=curves)
    assert outcome.delivered == 64 and outcome.messages == 8


def test_a_live_producer_stops_cleanly_at_a_signal(broker: KafkaPart, file: Path, pipeline: Pipeline) -> None:
    topic = topic_of(pipeline, "meters")
    with started("fleet", "--broker", broker.address, cwd=file.parent) as process:
        until(lambda: count(broker.address, topic) > 300, "readings flow")
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 0
    read = messages(broker.address, topic)
    assert f"delivered {len(read):,}, failed 0" in told
    # Every reading of the schedule between the first and the last, none twice: the rate is held exactly.
    times = sorted(json.loads(message.value())["ts"] for message in read)
    assert len(read) == round((times[-1] - times[0]) * 500 / 1_000) + 1
    assert len(set(times)) == len(times)


def test_a_replay_that_is_stopped_and_started_again_sends_every_row_once(
    broker: KafkaPart, file: Path, pipeline: Pipeline
) -> None:
    topic = topic_of(pipeline, "machine")
    data = str(file.parent / "data")
    # Slow enough that a stop hits it on the way.
    file.write_text(file.read_text().replace("speed = 0", "speed = 1000000"))
    for _ in range(3):
        before = count(broker.address, topic)
        with started("machine", "--broker", broker.address, "--data", data, cwd=file.parent) as process:

            def grown(process: subprocess.Popen[str] = process, before: int = before) -> bool:
                return process.poll() is not None or count(broker.address, topic) > before

            until(grown, "rows flow")
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        assert process.returncode == 0, told
    file.write_text(file.read_text().replace("speed = 1000000", "speed = 0"))
    assert main(["machine", "--pipeline", str(file), "--broker", broker.address, "--data", data]) == 0
    sent = Counter((m.key(), json.loads(m.value())["ts"]) for m in messages(broker.address, topic))
    assert sum(sent.values()) == 2 * 22_695
    [one, two] = [sum(n for (key, _), n in sent.items() if key.endswith(end)) for end in (b"-1", b"-2")]
    assert one == two == 22_695


def test_a_replay_killed_at_any_moment_loses_nothing(broker: KafkaPart, file: Path, pipeline: Pipeline) -> None:
    topic = topic_of(pipeline, "machine")
    flags = ["machine", "--broker", broker.address, "--data", str(file.parent / "data")]
    # Slow enough that a kill hits it on the way, in the middle between two saved places.
    file.write_text(file.read_text().replace("speed = 0", "speed = 2000000"))
    place = file.parent / "data" / "producers" / "machine.json"
    for _ in range(2):
        before = place.read_bytes() if place.exists() else b""
        with started(*flags, cwd=file.parent) as process:

            def kept(before: bytes = before) -> bool:
                return place.exists() and place.read_bytes() != before

            until(kept, "a place is kept")
            process.kill()
            process.communicate(timeout=60)
    file.write_text(file.read_text().replace("speed = 2000000", "speed = 0"))
    assert main([*flags, "--pipeline", str(file)]) == 0
    sent = {(message.key(), message.value()) for message in messages(broker.address, topic)}
    rows = len(set(MACHINE.read_text().splitlines()[1:]))
    assert Counter(key for key, _ in sent) == {f"{topic}-1".encode(): rows, f"{topic}-2".encode(): rows}


def test_a_broker_that_is_absent_at_the_start_is_waited_for(tmp_path: Path, file: Path, pipeline: Pipeline) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    flags = ["simulate", "--topic", topic_of(pipeline, "meters"), "--count", "200", "--rate", "1000"]
    with started(*flags, "--broker", f"127.0.0.1:{port}", cwd=file.parent) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == f"waiting for the broker at 127.0.0.1:{port}\n"
        with EmbeddedBroker(tmp_path / "broker", port=port) as late:
            _, told = process.communicate(timeout=60)
            assert process.returncode == 0
            assert told.splitlines()[0] == f"the broker at 127.0.0.1:{port} is there"
            assert count(late.address, topic_of(pipeline, "meters")) == 200


def test_a_producer_that_waits_for_the_broker_stops_at_once(file: Path, pipeline: Pipeline) -> None:
    with started("fleet", "--broker", "127.0.0.1:9", cwd=file.parent) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("waiting")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 0


def test_readings_wait_while_the_broker_is_away_and_arrive_once(tmp_path: Path, pipeline: Pipeline) -> None:
    topic = topic_of(pipeline, "meters")
    declared = Simulate(topic=topic, rate=2_000, devices=10)
    with EmbeddedBroker(tmp_path / "broker") as broker:
        stop = threading.Event()
        source = Simulation("s", declared, pipeline.topics[topic], now_us=now_us())
        outcomes: list[Outcome] = []
        runner = threading.Thread(
            target=lambda: outcomes.extend(run([source], Sender(broker.address, pipeline, stop=stop)))
        )
        runner.start()
        try:
            until(lambda: source.counts["sent"] > 1_000, "readings flow")
            broker.kill()
            before = source.counts["sent"]
            until(lambda: source.counts["sent"] > before + 2_000, "readings queue up")
            broker.start()
            back = count(broker.address, topic)
            until(lambda: count(broker.address, topic) > back + 1_000, "readings flow again")
        finally:
            stop.set()
            runner.join(60)
        [outcome] = outcomes
        assert outcome.failed == 0
        read = messages(broker.address, topic)
        assert len(read) == outcome.delivered
        assert len({(m.key(), json.loads(m.value())["ts"]) for m in read}) == len(read)


def test_a_stop_while_the_broker_is_away_ends_and_counts_what_is_lost(tmp_path: Path, pipeline: Pipeline) -> None:
    topic = topic_of(pipeline, "meters")
    declared = Simulate(topic=topic, rate=2_000, devices=10)
    with EmbeddedBroker(tmp_path / "broker") as broker:
        stop = threading.Event()
        source = Simulation("s", declared, pipeline.topics[topic], now_us=now_us())
        outcomes: list[Outcome] = []
        runner = threading.Thread(
            target=lambda: outcomes.extend(run([source], Sender(broker.address, pipeline, stop=stop)))
        )
        runner.start()
        until(lambda: source.counts["sent"] > 500, "readings flow")
        broker.kill()
        before = source.counts["sent"]
        until(lambda: source.counts["sent"] > before + 500, "readings queue up")
        stop.set()
        runner.join(60)
        broker.start()
        [outcome] = outcomes
        assert outcome.failed >= 500
        # What was on its way at the kill may have arrived without its acknowledgement.
        assert outcome.delivered <= count(broker.address, topic) <= outcome.counts["sent"]


def test_several_producers_run_in_one_process(broker: KafkaPart, file: Path, pipeline: Pipeline) -> None:
    text = file.read_text().replace("rate = 500", "rate = 500\ncount = 300")
    file.write_text(text.replace("rate = 4\n", "rate = 40\ncount = 40\n"))
    assert main(["--pipeline", str(file), "--broker", broker.address, "--data", str(file.parent), "--quiet"]) == 0
    counts = {kind: count(broker.address, topic_of(pipeline, kind)) for kind in ("meters", "sensors", "machine")}
    assert counts == {"meters": 300, "sensors": 40, "machine": 2 * 22_695}


def test_flags_override_what_the_file_declares(
    broker: KafkaPart, file: Path, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = topic_of(pipeline, "meters")
    flags = ["--pipeline", str(file), "--broker", broker.address, "--topic", topic]
    given = ["--devices", "3", "--count", "90", "--start", "2026-02-01", "--speed", "0", "--name", "m{n}"]
    wrong = ["--fault", "missing=0.5", "--curve", "city:choices=Rome", "--curve", "voltage:base=7,noise=0"]
    assert main(["simulate", *flags, *given, *wrong]) == 0
    values = [json.loads(message.value()) for message in messages(broker.address, topic)]
    assert {value["device"] for value in values} == {"m1", "m2", "m3"}
    assert {(value["city"], value["voltage"]) for value in values} == {("Rome", 7)}
    assert max(abs(value["current"] - 10) for value in values) <= 2  # as the file declares it
    assert f"missing {90 - len(values)}" in capsys.readouterr().err


def test_a_recording_is_replayed_from_flags_alone(
    broker: KafkaPart, file: Path, pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = file.read_text()
    file.write_text(text[: text.index("[producers.machine]")])
    recording = tmp_path / "r.csv"
    recording.write_text("day;clock;t\n1/2/2026;10:00:00;1,5\n1/2/2026;10:00:01;-\n1/2/2026;10:00:02;2,5\n")
    topic = topic_of(pipeline, "machine")
    flags = ["replay", "--pipeline", str(file), "--broker", broker.address, "--topic", topic, "--data", str(tmp_path)]
    mapped = ["--file", str(recording), "--field", "value=t", "--delimiter", ";", "--decimal", ",", "--missing=-"]
    time = [
        "--time-columns",
        "day",
        "--time-columns",
        "clock",
        "--time-format",
        "%d/%m/%Y %H:%M:%S",
        "--time-zone",
        "Europe/Rome",
    ]
    assert main([*flags, *mapped, *time, "--speed", "0", "--name", "t{n}"]) == 0
    assert main([*flags, *mapped, *time, "--speed", "0", "--name", "t{n}"]) == 0
    assert "replayed to its end already" in capsys.readouterr().err
    values = [json.loads(message.value()) for message in messages(broker.address, topic)]
    assert values == [
        {"device": "t1", "ts": 1_769_936_400_000, "value": 1.5},
        {"device": "t1", "ts": 1_769_936_402_000, "value": 2.5},
    ]
    assert main([*flags, *mapped, *time, "--speed", "0", "--name", "t{n}", "--restart"]) == 0
    assert count(broker.address, topic) == 4


def test_a_replay_that_met_a_bad_row_goes_on_without_loss_when_it_is_mended(
    broker: KafkaPart, file: Path, pipeline: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    topic = topic_of(pipeline, "machine")
    recording = file.parent / "r.csv"
    rows = [f"2026-01-01 00:00:00.{n:06},{n}" for n in range(100_000)]
    bad = [*rows[:95_000], rows[95_000].replace("95000,95000", "95000,oops!"), *rows[95_001:]]
    file.write_text(file.read_text().replace(str(MACHINE), str(recording)).replace("devices = 2", "devices = 1"))
    flags = ["machine", "--pipeline", str(file), "--broker", broker.address, "--data", str(file.parent / "data")]
    for text, status in ((bad, 2), (rows, 0)):
        recording.write_text("\n".join(["timestamp,value", *text]))
        assert main(flags) == status
    assert "row 95001: value is 'oops!'" in capsys.readouterr().err
    values = {json.loads(message.value())["value"] for message in messages(broker.address, topic)}
    assert values == {float(n) for n in range(100_000)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["flet"], ("declares no producer 'flet'", "write fleet")),
        (["simulate", "--topic", "metres"], ("declares no topic 'metres'", "write")),
        (["simulate", "--topic", "METERS", "--rate", "fast"], ("--rate is 'fast'", "help")),
        (["simulate", "--topic", "METERS", "--linger", "soon"], ("--linger", "help")),
        (["simulate", "--topic", "METERS", "--curve", "curent:base=1"], ("no field 'curent'", "write current")),
        (["simulate", "--topic", "METERS", "--fault", "lost=1"], ("no 'lost'", "write")),
        (["simulate", "--topic", "METERS", "--speed", "0"], ("--speed", "count")),
        (["replay", "--topic", "METERS"], ("--time-columns is missing", "column")),
        (["replay", "--topic", "MACHINE", "--file", "no.csv"], ("no.csv is not there", "folder")),
        (["replay", "--topic", "MACHINE", "--field", "value=temp"], ("no column 'temp'", "write")),
    ],
)
def test_a_mistake_is_one_clear_line_and_exit_code_2(
    file: Path, pipeline: Pipeline, capsys: pytest.CaptureFixture[str], arguments: list[str], said: tuple[str, str]
) -> None:
    kinds = {"METERS": "meters", "MACHINE": "machine"}
    given = [topic_of(pipeline, kinds[word]) if word in kinds else word for word in arguments]
    assert main([*given, "--pipeline", str(file), "--data", str(file.parent), "--broker", "127.0.0.1:9"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert said[0] in first
    assert said[1] in second
