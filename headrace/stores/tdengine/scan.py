"""A scan of TDengine: slices of event time as they come from the subtables, put in order here.

The server would merge the subtables' rows in order at a fraction of the speed. The next slice is fetched by a
thread while one is computed with.
"""

# ruff: noqa: S608 - every name and text that stands in a statement is quoted

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from headrace.batch import Batch
from headrace.column import Column as Values
from headrace.field_types import FieldType
from headrace.pipeline.tables import Column, Table
from headrace.stores.scanned import Devices
from headrace.stores.tdengine.blocks import Blocks, Texts, columns
from headrace.stores.tdengine.coded_names import CodedNames
from headrace.stores.tdengine.connection import Connection
from headrace.stores.tdengine.names import literal, quoted, subtable, supertable

LISTED_DEVICES = 1_000
"""More than so many are not named in a statement: what others there are is left out afterwards."""
ROWS_A_DEVICE = 100
SLICE_VALUES = 3_000_000
"""A slice has so many rows of each device, as each costs the server something, but no more values than that."""
WIDER = 8
LOOKED_UP = 5
"""Devices that are new while a slice is read are looked up so often."""

T = TypeVar("T")


def scan(
    connection: Connection,
    table: Table,
    chosen: tuple[Sequence[Column], Sequence[Column]],
    span_us: tuple[int, int],
    devices: Collection[str] | None,
    rows: int,
) -> Iterator[Batch]:
    """See the port. ``connection`` says where, and what errors mean; it is not used otherwise."""
    with _Thread() as thread:
        slices = _Slices(Blocks(connection), table, chosen, devices, rows)
        try:
            coming = thread.begin(slices.first(*span_us))
            while (found := coming.result()) is not None:
                coming = thread.begin(slices.next())
                yield from _pieces(found, rows)
        finally:
            thread.end(slices.close())


def _pieces(batch: Batch, rows: int) -> Iterator[Batch]:
    """The batch in batches of about ``rows``, all rows of one time in one of them."""
    place = 0
    while place < len(batch):
        end = place + rows
        if end < len(batch):
            end = int(np.searchsorted(batch.ts_us, batch.ts_us[end - 1], side="right"))
        yield batch.take(slice(place, end))
        place = end


class _Slices:
    def __init__(
        self,
        blocks: Blocks,
        table: Table,
        chosen: tuple[Sequence[Column], Sequence[Column]],
        devices: Collection[str] | None,
        rows: int,
    ) -> None:
        self._blocks = blocks
        self._table = table
        self._columns, self._tags = chosen
        self._asked = devices
        self._least_rows = rows
        self._t = quoted(table.time)
        self._name = quoted(supertable(table.name))
        self._types: list[FieldType] = ["text", "time", *(column.type for column in self._columns)]
        self._start_us = self._end_us = self._width_us = 0

    async def first(self, start_us: int, end_us: int) -> Batch | None:
        """Look up the devices; the first rows from ``start_us`` to ``end_us``, None if there are none."""
        self._start_us, self._end_us = start_us, end_us
        await self._look_up()
        wanted = None if self._asked is None else sorted(set(self._asked) & set(self._devices.names))
        # A device that comes new while the scan goes on is not among those that were asked for.
        self._asked = wanted
        self._among, each = "", len(self._devices.names)
        if wanted is not None and len(wanted) <= LISTED_DEVICES:
            each = len(wanted)
            listed = ", ".join(literal(subtable(self._table.name, name)) for name in wanted)
            self._among = f" AND tbname IN ({listed})"
            self._asked = None
        if not each:
            return None
        self._rows = max(self._least_rows, min(each * ROWS_A_DEVICE, SLICE_VALUES // len(self._types)))
        await self._skip()
        self._width_us = self._end_us - self._start_us
        return await self.next()

    async def next(self) -> Batch | None:
        """The rows of the next slice, in order; None if there are no more."""
        while self._start_us < self._end_us:
            width_us = min(self._width_us, self._end_us - self._start_us)
            count = await self._blocks.one(f"SELECT COUNT(*) {self._from(self._start_us + width_us)}") or 0
            if count > 2 * self._rows and width_us > 1:
                self._width_us = max(min(width_us // 2, width_us * self._rows // count), 1)
                continue
            self._width_us = min(max(width_us * self._rows // max(count, 1), 1), width_us * WIDER)
            found = await self._slice(self._start_us + width_us) if count else None
            self._start_us += width_us
            if found is None:
                # There may be nothing for long.
                await self._skip()
            elif len(found):
                return found
        return None

    async def close(self) -> None:
        """Close the websocket."""
        await self._blocks.close()

    def _from(self, end_us: int) -> str:
        return f"FROM {self._name} WHERE {self._t} >= {self._start_us} AND {self._t} < {end_us}{self._among}"

    async def _skip(self) -> None:
        if self._start_us < self._end_us:
            least_us = await self._blocks.one(f"SELECT CAST(FIRST({self._t}) AS BIGINT) {self._from(self._end_us)}")
            self._start_us = self._end_us if least_us is None else least_us

    async def _slice(self, end_us: int) -> Batch:
        for _ in range(LOOKED_UP):
            # As wide as the names are, and one more: a longer one is then none of them. As wide as it may be, a
            # block would have few rows.
            names = [f"CAST({quoted(self._table.key)} AS VARCHAR({self._codes.longest + 1}))", self._t]
            names += [quoted(column.name) for column in self._columns]
            blocks = await self._blocks.fetch(f"SELECT {', '.join(names)} {self._from(end_us)}")
            found = [columns(block, self._types) for block in blocks]
            codes = [self._codes.of(part[0]) for part in found if isinstance(part[0], Texts)]
            joined = np.concatenate(codes) if codes else np.empty(0, np.int64)
            if len(joined) and joined.min() < 0:
                await self._look_up()
                continue
            batch = self._devices.batch(
                joined,
                np.concatenate([_values(part[1]).values for part in found]) if found else np.empty(0, np.int64),
                {
                    column.name: Values.joined([_values(part[place]) for part in found] or [Values.of([], column.type)])
                    for place, column in enumerate(self._columns, start=2)
                },
            )
            if self._asked is None:
                return batch
            kept = np.zeros(len(self._devices.names), bool)
            kept[[self._devices.places[name] for name in self._asked if name in self._devices.places]] = True
            return batch.take(np.flatnonzero(kept[batch.devices.looked_up(self._devices.places)]))
        raise self._blocks.away("new devices come faster than they can be looked up")

    async def _look_up(self) -> None:
        names = [quoted(self._table.key), *(quoted(tag.name) for tag in self._tags)]
        types: list[FieldType] = ["text", *(tag.type for tag in self._tags)]
        rows: list[tuple[Any, ...]] = []
        for block in await self._blocks.fetch(f"SELECT TAGS tbname, {', '.join(names)} FROM {self._name}"):
            rows += zip(*[column.tolist() for column in columns(block, ["text", *types])[1:]], strict=True)
        rows.sort(key=lambda row: row[0])
        self._devices = Devices(self._tags, rows)
        self._codes = CodedNames(self._devices.names)


def _values(column: Values | Texts) -> Values:
    if isinstance(column, Values):
        return column
    values = Values.of(column.tolist(), "text")
    return Values(values.values, values.valid)


class _Thread:
    """An event loop in a thread of its own, as the caller's may run one already."""

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scan", daemon=True)
        self._thread.start()
        return self

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def end(self, last: Coroutine[Any, Any, None]) -> None:
        """Do this at last, and give up what is under way."""

        async def give_up() -> None:
            await last
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            # Names of hosts are looked up there.
            await self._loop.shutdown_default_executor()

        self.begin(give_up()).result()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
