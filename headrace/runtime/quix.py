"""All that Headrace knows of the inside of Quix Streams 3.28, in one place; every other file imports Quix from here.

Of the names that Quix keeps to itself (with an underscore) six are used, all in this file. The others are public by
their names but documented nowhere: they may change with any release. The version is therefore pinned to the
minor, ``tests/test_quix.py`` says of each name by itself when it is gone or takes something else, and
docs/quix.md has the hooks that would make them needless.
"""

from __future__ import annotations

import functools
import signal
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from quixstreams import Application
from quixstreams.checkpointing.exceptions import CheckpointProducerTimeout
from quixstreams.dataframe import StreamingDataFrame
from quixstreams.error_callbacks import default_on_processing_error
from quixstreams.exceptions import QuixException
from quixstreams.internal_consumer import InternalConsumer
from quixstreams.kafka.consumer import raise_for_msg_error
from quixstreams.models import MessageContext, Row, Topic
from quixstreams.models.topics.exceptions import TopicNameLengthExceeded, TopicPermissionError
from quixstreams.processing import ProcessingContext
from quixstreams.sinks.base import BaseSink
from quixstreams.sinks.base.exceptions import SinkBackpressureError
from quixstreams.state import DEFAULT_STATE_STORE_NAME
from quixstreams.state.base import PartitionTransaction, StorePartition
from quixstreams.state.metadata import SEPARATOR, Marker
from quixstreams.state.rocksdb import RocksDBOptions, RocksDBStore
from quixstreams.state.rocksdb.partition import RocksDBStorePartition

__all__ = [
    "SEPARATOR",
    "BaseSink",
    "CheckpointProducerTimeout",
    "HookedApplication",
    "InternalConsumer",
    "Marker",
    "MessageContext",
    "PartitionTransaction",
    "QuixException",
    "RocksDBOptions",
    "RocksDBStorePartition",
    "Row",
    "SinkBackpressureError",
    "StorePartition",
    "StreamingDataFrame",
    "Topic",
    "TopicNameLengthExceeded",
    "TopicPermissionError",
    "default_on_processing_error",
    "raise_for_msg_error",
]


class HookedApplication(Application):
    """Quix's application with the hooks that it lacks: what a subclass may override has no underscore.

    Each hook that is given ``then`` stands around what Quix does, and calls it.
    """

    def __init__(self, *, state_dir: Path, **settings: Any) -> None:
        super().__init__(state_dir=state_dir, **settings)
        self._hook_checkpoints()
        self._hook_state(state_dir.absolute() / self.config.consumer_group)

    # What a subclass gives.

    @abstractmethod
    def make_consumer(self, settings: dict[str, Any]) -> InternalConsumer:
        """The consumer, from what Quix would make its own of. Called once, before the application is made."""

    @abstractmethod
    def make_partition(self, settings: dict[str, Any]) -> RocksDBStorePartition:
        """The store of a partition's state, from what Quix would make its own of."""

    def on_signal(self) -> None:
        """SIGINT or SIGTERM has come; Quix stops after this."""

    def on_store_offset(self, then: Callable[..., None], topic: str, partition: int, offset: int) -> None:
        """A row was processed, and its offset is to be part of the checkpoint."""
        then(topic=topic, partition=partition, offset=offset)

    def on_commit(self, then: Callable[..., None], *, force: bool = False, revoking: bool = False) -> None:
        """The checkpoint is to be committed if it is time, or if it must be (``force``)."""
        then(force=force, revoking=revoking)

    def on_begin_checkpoint(self, then: Callable[[], None]) -> None:
        """A new checkpoint begins."""
        then()

    def restored_up_to(self, committed: dict[str, int]) -> dict[str, int]:
        """By topic, the offset that state is restored up to, from what the group has committed."""
        return committed

    # What it may ask for.

    @property
    def context(self) -> ProcessingContext:
        """The checkpoint that is open, the consumer, the producer, the state and the sinks."""
        return self._processing_context

    def begin_checkpoint(self) -> None:
        """Begin a new checkpoint; the one that was open is forgotten."""
        self.context.init_checkpoint()  # type: ignore[no-untyped-call]

    # How the hooks are hung in.

    def _get_internal_consumer(
        self, on_error: Any = None, extra_config_overrides: dict[str, Any] | None = None
    ) -> InternalConsumer:
        config = self.config
        return self.make_consumer(
            {
                "broker_address": config.broker_address,
                "consumer_group": config.consumer_group,
                "auto_offset_reset": config.auto_offset_reset,
                "auto_commit_enable": False,
                "extra_config": {**config.consumer_extra_config, **(extra_config_overrides or {})},
                "on_error": on_error,
            }
        )

    def _setup_signal_handlers(self) -> None:
        super()._setup_signal_handlers()  # type: ignore[no-untyped-call]
        for number in (signal.SIGINT, signal.SIGTERM):
            stop = signal.getsignal(number)
            assert callable(stop)  # noqa: S101 - Quix has just set it
            signal.signal(number, functools.partial(self._signalled, stop))

    def _signalled(self, stop: Callable[[int, FrameType | None], Any], number: int, frame: FrameType | None) -> None:
        self.on_signal()
        stop(number, frame)

    def _hook_checkpoints(self) -> None:
        context = self.context
        for method, hook in (
            ("store_offset", self.on_store_offset),
            ("commit_checkpoint", self.on_commit),
            ("init_checkpoint", self.on_begin_checkpoint),
        ):
            setattr(context, method, functools.partial(hook, getattr(context, method)))

    def _hook_state(self, folder: Path) -> None:
        manager = self.context.state_manager
        register, assign = manager.register_store, manager.on_partition_assign

        def registered(stream_id: str | None, *arguments: Any, **named: Any) -> None:
            register(stream_id, *arguments, **named)
            for store in manager.stores[stream_id].values():
                assert isinstance(store, RocksDBStore)  # noqa: S101 - as the application is made here
                make = functools.partial(self._new_partition, folder, store)
                store.create_new_partition = make  # type: ignore[method-assign]

        def assigned(stream_id: str | None, partition: int, committed_offsets: dict[str, int]) -> Any:
            return assign(stream_id, partition, self.restored_up_to(committed_offsets))

        manager.register_store = registered  # type: ignore[method-assign]
        manager.on_partition_assign = assigned  # type: ignore[method-assign]

    def _new_partition(self, folder: Path, store: RocksDBStore, partition: int) -> RocksDBStorePartition:
        producers = store._changelog_producer_factory
        return self.make_partition(
            {
                "path": str(folder / store.name / (store.stream_id or "") / str(partition)),
                "changelog_producer": producers and producers.get_partition_producer(partition),
                # That a stop, or a rebalance that took too long, ends the waiting for a store that is still open
                # elsewhere.
                "stop_event": store._stop_event,
                "open_deadline": store._open_deadline,
            }
        )


def store_of(context: ProcessingContext, topic: str, partition: int) -> StorePartition:
    """The store of an assigned partition's state."""
    return context.state_manager.get_store(topic, DEFAULT_STATE_STORE_NAME).partitions[partition]


def transaction_of(context: ProcessingContext, topic: str, partition: int) -> PartitionTransaction[Any, Any]:
    """The transaction of that store in the checkpoint that is open."""
    return context.checkpoint.get_store_transaction(stream_id=topic, partition=partition)
