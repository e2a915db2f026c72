"""Quix's names that Headrace leans on: each is there, takes what it is given, and is used in one file alone."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import signal
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from headrace import logs
from headrace.runtime import MicroBatchApplication
from headrace.runtime.consumer import MicroBatchConsumer
from headrace.runtime.fencing import CheckpointedPartition
from headrace.runtime.quix import Application, HookedApplication, InternalConsumer

ROOT = Path(__file__).parent.parent
QUIX = ROOT / "headrace" / "runtime" / "quix.py"
PAGE = ROOT / "docs" / "quix.md"


@dataclass(frozen=True)
class Name:
    """A name of Quix's: where it stands, the parameters that it is called with, and what it is for."""

    where: str
    takes: str | None
    use: str


PRIVATE = [
    Name("app:Application._get_internal_consumer", "self on_error extra_config_overrides", "a consumer of our own"),
    Name("app:Application._setup_signal_handlers", "self", "knowing that a stop is asked for"),
    Name("app:Application()._processing_context", None, "the checkpoint, the producer, the state, the sinks"),
    Name("state.rocksdb:RocksDBStore()._changelog_producer_factory", None, "the changelog of a partition's state"),
    Name("state.rocksdb:RocksDBStore()._stop_event", None, "ending the wait for a store that is open elsewhere"),
    Name("state.rocksdb:RocksDBStore()._open_deadline", None, "ending that wait in time for a rebalance"),
]
UNDOCUMENTED = [
    Name("internal_consumer:InternalConsumer.poll_row", "self timeout buffered", "rows that are micro-batches"),
    Name("internal_consumer:InternalConsumer.poll", "self timeout", "messages of changelogs, without ends"),
    Name("internal_consumer:InternalConsumer.assign", "self partitions", "reading what was paused before"),
    Name("internal_consumer:InternalConsumer.seek", "self partition", "knowing where reading goes on"),
    Name("internal_consumer:InternalConsumer.subscribe", "self topics on_assign on_revoke on_lost", "rebalances"),
    Name("internal_consumer:InternalConsumer.trigger_backpressure", "self offsets_to_seek resume_after", "a sink away"),
    Name("internal_consumer:InternalConsumer.backpressured_tps", None, "which partitions are paused"),
    Name("kafka.consumer:raise_for_msg_error", "msg", "messages that are errors"),
    Name("models:Row", "value key timestamp context headers", "what is handed on"),
    Name("models:MessageContext", "topic partition offset size", "where it comes from"),
    Name("processing:ProcessingContext.store_offset", "self topic partition offset", "no offset of idle rows"),
    Name("processing:ProcessingContext.commit_checkpoint", "self force revoking", "state before offsets"),
    Name("processing:ProcessingContext.init_checkpoint", "self", "where a checkpoint begins"),
    Name("processing:ProcessingContext.checkpoint", None, "the checkpoint that is open"),
    Name("processing:ProcessingContext().consumer", None, "the application's consumer"),
    Name("processing:ProcessingContext().producer", None, "producing within a checkpoint"),
    Name("processing:ProcessingContext().state_manager", None, "state"),
    Name("processing:ProcessingContext().sink_manager", None, "sinks that are flushed with a checkpoint"),
    Name("sinks:SinkManager.register", "self sink", "sinks that are flushed with a checkpoint"),
    Name("internal_producer:InternalProducer.produce", "self topic value key headers partition timestamp", "results"),
    Name("internal_producer:InternalProducer.flush", "self timeout", "results before state"),
    Name("checkpointing:Checkpoint.expired", "self", "whether it is time"),
    Name("checkpointing:Checkpoint.empty", "self", "whether there is anything"),
    Name("checkpointing:Checkpoint.close", "self revoking", "dropping it"),
    Name("checkpointing:Checkpoint.get_store_transaction", "self stream_id partition", "writing state"),
    Name("state:StateStoreManager.register_store", "self stream_id", "a store of our own"),
    Name("state:StateStoreManager.on_partition_assign", "self stream_id partition committed_offsets", "restoring"),
    Name("state:StateStoreManager.get_store", "self stream_id store_name", "reading state"),
    Name("state:StateStoreManager.stores", None, "a store of our own"),
    Name("state.rocksdb:RocksDBStore.create_new_partition", "self partition", "a store of our own"),
    Name("state.rocksdb:RocksDBStore.partitions", None, "reading state"),
    Name("state.rocksdb:RocksDBStore.name", None, "the folder of a partition's state"),
    Name("state.rocksdb:RocksDBStore.stream_id", None, "the folder of a partition's state"),
    Name(
        "state.rocksdb.partition:RocksDBStorePartition",
        "path options changelog_producer stop_event open_deadline",
        "a store of our own",
    ),
    Name(
        "state.rocksdb.partition:RocksDBStorePartition.recover_from_changelog_message",
        "self key value cf_name offset ttl_stamped",
        "restoring whole checkpoints",
    ),
    Name("state.rocksdb.partition:RocksDBStorePartition.iter_items", "self lower_bound", "finding epochs"),
    Name("state.rocksdb.partition:RocksDBStorePartition.get", "self key", "reading state"),
    Name("state.rocksdb.partition:RocksDBStorePartition.uses_ttl_stamps", None, "values taken as they are"),
    Name("state.rocksdb.transaction:RocksDBPartitionTransaction.set_bytes", "self key value prefix", "writing state"),
    Name("state.rocksdb.transaction:RocksDBPartitionTransaction.delete", "self key prefix", "deleting state"),
    Name("state.metadata:SEPARATOR", None, "the keys of state"),
    Name("state.metadata:Marker.UNDEFINED", None, "state that is not there"),
    Name("error_callbacks:default_on_processing_error", "exc row logger", "errors that are not ours"),
]


class Changed(AssertionError):
    """Quix has changed something that we lean on."""

    def __init__(self, name: Name, what: str) -> None:
        super().__init__(
            f"quixstreams {version('quixstreams')}: {name.where} {what}. It is used for {name.use}: "
            "look at what the release did, and adapt headrace/runtime/quix.py and docs/quix.md"
        )


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> MicroBatchApplication:
    """An application with a stream that has state; nobody answers at its broker."""
    folder = tmp_path_factory.mktemp("quix")
    made = MicroBatchApplication(broker="127.0.0.1:1", group="g", instance="1", state=folder)
    made.context.state_manager.register_store("readings")
    return made


def find(name: Name, app: MicroBatchApplication) -> Any:
    """What a name stands for: of a class, or (written with parentheses) of an object that it has made."""
    module, _, path = name.where.partition(":")
    objects = {
        "Application()": app,
        "ProcessingContext()": app.context,
        "RocksDBStore()": app.context.state_manager.stores["readings"]["default"],
    }
    try:
        found: Any = importlib.import_module(f"quixstreams.{module}")
        for part in path.split("."):
            found = objects[part] if part in objects else getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise Changed(name, f"is gone ({error})") from None
    return found


def assert_unchanged(name: Name, app: MicroBatchApplication) -> None:
    found = find(name, app)
    if name.takes is None:
        return
    if not callable(found):
        raise Changed(name, "can no longer be called")
    known = [f.name for f in fields(found)] if is_dataclass(found) else list(inspect.signature(found).parameters)
    wanted = name.takes.split()
    if lost := [parameter for parameter in wanted if parameter not in known]:
        raise Changed(name, f"no longer takes {', '.join(lost)}, but {', '.join(known)}")
    if more := [p.name for p in required(found) if p.name not in wanted]:
        raise Changed(name, f"now needs {', '.join(more)} as well")


def required(found: Any) -> Iterator[inspect.Parameter]:
    for parameter in inspect.signature(found).parameters.values():
        plain = parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if plain and parameter.default is inspect.Parameter.empty:
            yield parameter


@pytest.mark.parametrize("name", [*PRIVATE, *UNDOCUMENTED], ids=lambda name: name.where)
def test_quix_still_has_what_we_lean_on(name: Name, app: MicroBatchApplication) -> None:
    assert_unchanged(name, app)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (Name("app:Application._no_such", None, "a test"), r"_no_such is gone .* It is used for a test: look at"),
        (Name("gone:Anything", None, "a test"), "is gone"),
        (Name("models:Row", "value nothing", "a test"), "no longer takes nothing, but"),
        (Name("state:StateStoreManager.get_store", "self", "a test"), "now needs stream_id as well"),
        (Name("state.metadata:SEPARATOR", "self", "a test"), "can no longer be called"),
    ],
    ids=["gone", "module gone", "another parameter", "one more parameter", "no function"],
)
def test_a_change_of_quix_is_said_clearly(name: Name, said: str, app: MicroBatchApplication) -> None:
    with pytest.raises(Changed, match=said):
        assert_unchanged(name, app)


# That the hooks are where Quix calls them


def test_quix_takes_its_consumer_from_us(app: MicroBatchApplication) -> None:
    assert isinstance(app.consumer, MicroBatchConsumer)
    assert app.context.consumer is app.consumer


def test_quix_takes_the_stores_of_partitions_from_us(app: MicroBatchApplication, tmp_path: Path) -> None:
    store = app.context.state_manager.stores["readings"]["default"]
    made = store.assign_partition(3)
    try:
        assert isinstance(made, CheckpointedPartition)
        # Where Quix would have put it: a restart of an older release finds it, and so does whoever deletes it.
        theirs = type(store).destroy_partition
        assert made.path.endswith("/g/default/readings/3")
    finally:
        store.revoke_partition(3)
    assert theirs(store, 3)


def test_quix_restores_up_to_the_end(app: MicroBatchApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    assert app.restored_up_to({"readings": 5}) == {"readings": 2**63 - 1}


def test_a_signal_is_seen_and_stops_quix(app: MicroBatchApplication, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(app, "on_signal", lambda: seen.append("signal"))
    monkeypatch.setattr(app, "stop", lambda: seen.append("stop"))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        app._setup_signal_handlers()
        for number in before:
            signal.raise_signal(number)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert seen == ["signal", "stop"] * 2


@pytest.mark.parametrize("method", ["store_offset", "commit_checkpoint", "init_checkpoint"])
def test_quix_asks_the_context_itself(app: MicroBatchApplication, method: str) -> None:
    """The hooks hang at the object: a method that Quix had taken from the class before would pass them."""
    hooked = vars(app.context)[method]
    assert hooked.args[0].__func__ is getattr(type(app.context), method)


def test_where_a_checkpoint_begins_is_known_until_the_next_one(app: MicroBatchApplication) -> None:
    app.context.init_checkpoint()  # type: ignore[no-untyped-call]
    app.consumer.handed_out["readings", 0] = 7
    app.context.store_offset("readings", 0, 9)
    app.consumer.handed_out["readings", 0] = 10
    app.context.store_offset("readings", 0, 19)
    assert app.consumer.begun == {("readings", 0): 7}
    app.context.init_checkpoint()  # type: ignore[no-untyped-call]
    assert app.consumer.begun == {}


def test_partitions_that_go_are_told_even_if_their_last_commit_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    kept: dict[str, Any] = {}
    consumer = MicroBatchConsumer(
        batch=1, silent_s=1, tick_s=1, broker_address="127.0.0.1:1", consumer_group="g", auto_offset_reset="earliest"
    )
    monkeypatch.setattr(InternalConsumer, "subscribe", lambda _self, _topics, **named: kept.update(named))
    consumer.on_gone.append(told.append)
    consumer.after_loss.append(lambda: told.append("lost"))

    def fail(*_: Any) -> None:
        raise ValueError("no commit")

    consumer.subscribe([], on_assign=None, on_revoke=fail, on_lost=lambda *_: None)
    with pytest.raises(ValueError, match="no commit"):
        kept["on_revoke"](consumer, [TopicPartition("readings", 1)])
    kept["on_lost"](consumer, [TopicPartition("readings", 2)])
    assert told == [{("readings", 1)}, {("readings", 2)}, "lost"]


def test_messages_that_are_left_out_of_the_logs_are_still_quix_s() -> None:
    assert "Application is stopping due to failure" in inspect.getsource(Application)
    assert not logs._not_said_elsewhere(
        logging.makeLogRecord({"msg": "Application is stopping due to failure, latest checkpoint will not be"})
    )
    for name in ("app", "kafka.consumer", "kafka.producer"):
        assert importlib.import_module(f"quixstreams.{name}").logger.name == f"quixstreams.{name}"


# That no other file leans on Quix


def sources() -> list[Path]:
    return [
        file
        for folder in ("headrace", "producers", "processors", "sinks", "viewer")
        for file in (ROOT / folder).rglob("*.py")
        if file != QUIX
    ]


def test_quix_is_imported_in_one_file() -> None:
    found = []
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{file.name}: {name}" for name in names if name.split(".")[0] == "quixstreams"]
    assert found == []


def test_the_private_names_are_these() -> None:
    used = set()
    for node in ast.walk(ast.parse(QUIX.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.FunctionDef):
            used.add(node.name)
    used = {name for name in used if name.startswith("_") and not name.startswith("__")}
    ours = own_names(HookedApplication) - quix_names(Application)
    assert used - ours == {name.where.rpartition(".")[2] for name in PRIVATE}


def test_no_other_file_reaches_into_an_object() -> None:
    """Whatever has an underscore is asked of ``self`` (or of one's own kind) alone, in the files that use Quix."""
    reached = []
    for file in [file for file in sources() if "headrace.runtime" in file.read_text(encoding="utf-8")]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        own |= {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                reached += [f"{file.name}: {ast.unparse(node)}"] if node.attr not in own else []
    # Constants of librdkafka, as its documentation names them; and what ends a process at once.
    assert [one for one in reached if not one.endswith(("KafkaError._PARTITION_EOF", "os._exit"))] == []


def quix_names(made: type) -> set[str]:
    """The names that a class of Quix's has, or gives to its objects."""
    names = {*dir(made)}
    for one in made.__mro__[:-1]:
        for node in ast.walk(ast.parse(inspect.getsource(one))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                names.add(node.attr)
    return {name for name in names if not name.startswith("__") and name != "_abc_impl"}


def own_names(made: type) -> set[str]:
    """The names that a class of ours has beside its base's, or gives to its objects."""
    tree = ast.parse(inspect.getsource(made))
    given = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }
    return {name for name in {*vars(made), *given} if not name.startswith("__")}


@pytest.mark.parametrize("ours", [HookedApplication, MicroBatchApplication, MicroBatchConsumer, CheckpointedPartition])
def test_our_names_are_not_quix_s(ours: type) -> None:
    """A name of our own that Quix has too would override it unseen."""
    theirs: type = next(one for one in ours.__mro__ if one.__module__.startswith("quixstreams"))
    meant = {name.where.rpartition(".")[2] for name in [*PRIVATE, *UNDOCUMENTED]}
    assert own_names(ours) & quix_names(theirs) <= meant


# The page that says so


@pytest.mark.parametrize("name", PRIVATE, ids=lambda name: name.where)
def test_the_page_names_it(name: Name) -> None:
    assert f"`{name.where.partition(':')[2].replace('()', '')}`" in PAGE.read_text(encoding="utf-8")
