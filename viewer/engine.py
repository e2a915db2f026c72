"""The Perspective engine behind one thread: the adapter that knows its traps.

- Two threads in the engine lose rows, so one thread does all: tables, updates and the pages' requests.
- The first rows into an empty table can hang for ever once views exist on it, when there are about as many
  as cores: the engine is told of many cores, and every table is born with a row of nulls. Nothing is ever
  cleared or replaced.
- From Arrow, NaN becomes null; from dicts it would become 0.0. Integers would be cut to 32 bits: floats only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

import numpy as np
import perspective
import pyarrow as pa

from viewer.engine_tables import Kind
from viewer.frames import Mark

INDEX = "#row"
"""The engine's key column; no field of a pipeline can have this name."""

_ARROW: dict[Kind, pa.DataType] = {
    "float": pa.float64(),
    "string": pa.string(),
    "boolean": pa.bool_(),
    "datetime": pa.timestamp("ms"),
}
_Result = TypeVar("_Result")


class Session(Protocol):
    """A page's side of the engine."""

    def handle_request(self, request: bytes) -> None:
        """Take a request; responses go to the session's receiver."""
        ...

    def close(self) -> None:
        """Drop the session's views and subscriptions."""
        ...


class Engine:
    """The engine's tables, all of them owned by one thread; every method may be called from any thread."""

    def __init__(self, mark: Mark | None = None) -> None:
        """With the mark that it keeps while it works."""
        self._mark = mark
        perspective.set_num_cpus(64)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="engine")
        self._server = perspective.Server()
        self._client = self._server.new_local_client()
        self._tables: dict[str, Any] = {}

    def submit(self, work: Callable[[], _Result], *, page: int = 0) -> Future[_Result]:
        """Do ``work`` in the engine's thread, in the name of a page."""
        if self._mark is None:
            return self._thread.submit(work)
        return self._thread.submit(self._marked, self._mark, work, page)

    @staticmethod
    def _marked(mark: Mark, work: Callable[[], _Result], page: int) -> _Result:
        mark.begin(page)
        try:
            return work()
        finally:
            mark.end()

    def create(self, name: str, columns: Mapping[str, Kind]) -> None:
        """Make a table, keyed by INDEX, that holds one row of nulls at position 0."""
        seed = arrow({INDEX: pa.array([0], pa.int32()), **{n: column([None], kind) for n, kind in columns.items()}})

        def make() -> None:
            schema = {INDEX: "integer", **columns}
            table = self._tables[name] = self._client.table(schema, index=INDEX, name=name)
            table.update(seed)

        self.submit(make).result()

    def update(self, name: str, rows: bytes) -> Future[None]:
        """Upsert rows (Arrow, with INDEX) into a table, and tell the pages that look at it."""
        return self.submit(lambda: self._tables[name].update(rows))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """All rows of a table, for tests and for looking into a running viewer."""

        def read() -> list[dict[str, Any]]:
            view = self._tables[name].view()
            try:
                return list(view.to_json())
            finally:
                view.delete()

        return self.submit(read).result()

    def new_session(self, receive: Callable[[bytes], None]) -> Session:
        """A page's session; ``receive`` is called with each response. In the engine's thread only."""
        session: Session = self._server.new_session(receive)
        return session

    def close(self, timeout_s: float = 0.5) -> None:
        """Take no more work; waits for what was asked for, for ``timeout_s`` at the most."""
        wait([self.submit(lambda: None)], timeout_s)
        self._thread.shutdown(wait=False, cancel_futures=True)


def column(values: list[Any], kind: Kind) -> pa.Array:
    """Values of a store's column as the engine takes them: None and NaN as null, times from µs to ms."""
    if kind == "float":
        floats = np.array(values, dtype=np.float64)
        return pa.array(floats, mask=~np.isfinite(floats))
    if kind == "datetime":
        values = [None if value is None else value // 1000 for value in values]
    return pa.array(values, _ARROW[kind])


def arrow(columns: Mapping[str, pa.Array]) -> bytes:
    """Columns as an Arrow stream."""
    table = pa.table(dict(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())
