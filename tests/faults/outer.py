"""The broker and the store of a run: real servers in folders of its own, which may be taken away and given back."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Literal, Protocol

from faults.recount.stored import SQLiteTables, Tables, TDengineTables
from headrace.broker.embedded import EmbeddedBroker
from servers.absent import ServerAbsent
from servers.jars import jars
from servers.kafka import NATIVE, POM, NativeKafka
from servers.tdengine import LOGIN, NativeTDengine

StoreKind = Literal["sqlite", "tdengine"]
BrokerKind = Literal["kafka", "embedded"]
DATABASE = "faults"
KAFKA_TRIES = 3


class Broker(Protocol):
    """A broker that may be killed, stopped and started again on the same port."""

    name: str

    @property
    def address(self) -> str:
        """``host:port``."""
        ...

    def start(self) -> None:
        """Start, and wait until it answers."""
        ...

    def kill(self) -> None:
        """End it as a power cut would."""
        ...

    def stop(self) -> None:
        """Stop it in order."""
        ...


class Kafka:
    """Apache Kafka on the machine's Java. Raises ServerAbsent where there is none."""

    name = NATIVE

    def __init__(self, folder: Path) -> None:
        self._kafka = NativeKafka(folder, jars(POM))

    @property
    def address(self) -> str:
        """See Broker."""
        return self._kafka.address

    def start(self) -> None:
        """See Broker. Where it recovers for longer than one patience, it is waited for again."""
        for left in range(KAFKA_TRIES, 0, -1):
            try:
                self._kafka.start()
            except ServerAbsent:
                self._kafka.stop()
                if left == 1:
                    raise
            else:
                return

    def kill(self) -> None:
        """See Broker."""
        self._kafka.stop()

    def stop(self) -> None:
        """See Broker."""
        self._kafka.stop_in_order()


class Embedded:
    """The project's own broker."""

    name = "embedded"

    def __init__(self, folder: Path, cache: Path) -> None:
        self._broker = EmbeddedBroker(folder, cache=cache)

    @property
    def address(self) -> str:
        """See Broker."""
        return self._broker.address

    def start(self) -> None:
        """See Broker."""
        self._broker.start()

    def kill(self) -> None:
        """See Broker."""
        self._broker.kill()

    def stop(self) -> None:
        """See Broker."""
        self._broker.stop()


class Store(Protocol):
    """A store that may be taken away for a time."""

    name: str

    @property
    def url(self) -> str:
        """What services are given as --store."""
        ...

    def outages(self) -> list[str]:
        """The ways in which it can be away."""
        ...

    def outage(self, how: str, seconds: float) -> None:
        """Let it be away for so long; it answers again on return."""
        ...

    def tables(self) -> Tables:
        """Its rows, for the recount."""
        ...

    def stop(self) -> None:
        """End what was started."""
        ...


class SQLite:
    """A file; away is: locked by another for longer than its writers wait."""

    name = "SQLite"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "store.db"

    @property
    def url(self) -> str:
        """See Store."""
        return f"sqlite:///{self._path}"

    def outages(self) -> list[str]:
        """See Store."""
        return ["store-locked"]

    def outage(self, how: str, seconds: float) -> None:
        """See Store."""
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    def tables(self) -> Tables:
        """See Store."""
        return SQLiteTables(self._path)

    def stop(self) -> None:
        """See Store."""


class TDengine:
    """A private server with its adapter, in a process group. Raises ServerAbsent where there is none."""

    name = "TDengine"

    def __init__(self, folder: Path, process_group: int) -> None:
        self._server = NativeTDengine(folder, process_group)
        try:
            self._server.start()
        except FileNotFoundError as error:
            raise ServerAbsent(f"there is no {error.filename} on PATH") from None

    @property
    def url(self) -> str:
        """See Store."""
        return f"{self._server.dsn}/{DATABASE}"

    def outages(self) -> list[str]:
        """See Store."""
        return ["adapter-stopped", "server-killed"]

    def outage(self, how: str, seconds: float) -> None:
        """See Store."""
        if how == "adapter-stopped":
            self._server.stop_adapter()
            time.sleep(seconds)
            self._server.start_adapter()
        else:
            self._server.stop_server()
            time.sleep(seconds)
            self._server.start_server()
            self._server.wait_ready()

    def tables(self) -> Tables:
        """See Store."""
        return TDengineTables("127.0.0.1", self._server.adapter_port, DATABASE, LOGIN)

    def stop(self) -> None:
        """See Store."""
        self._server.stop()
