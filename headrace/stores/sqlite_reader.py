"""``python -m headrace.stores.sqlite_reader``: reads slices of a SQLite store into Arrow, three times as fast.

It is a process of its own as ADBC's driver brings its own SQLite: two of them with one file in one process take each
other's locks away (POSIX gives locks to processes). And it reads the next slice while this one is computed with.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from headrace.children import program
from headrace.column import BLANKS
from headrace.column import Column as Values
from headrace.field_types import FieldType
from headrace.pipeline.tables import Column, Table
from headrace.stores.sqlite_slices import Slices

if TYPE_CHECKING:
    import pyarrow as pa

PIPE_BYTES = 1 << 20
CACHE_KIB = 64 * 1024
BUSY_MS = 5_000
SPARE_ROWS = 1_000_000
"""Types are found in a statement's first so many rows more than are expected: in all of them."""


class ReaderEnded(Exception):
    """The process has ended before it had read all."""


@dataclass(frozen=True)
class Order:
    """What is to be read: rows of ``start_us`` <= time < ``end_us`` of a table in a file, in slices of ``rows``."""

    file: str
    table: Table
    columns: tuple[Column, ...]
    devices: list[int] | None
    few: bool
    start_us: int
    end_us: int
    rows: int

    def slices(self) -> Slices:
        """The statements."""
        return Slices(self.table, self.columns, self.devices, few=self.few)


def by_process(order: Order) -> Iterator[tuple[list[Values], int]]:
    """What a process reads: the columns of a slice, and the time from which on nothing was read yet.

    Raises ReaderEnded when the process did not come to the end.
    """
    # Here and below, as it is 40 MB that a service does without until it reads much.
    import pyarrow as pa

    process = subprocess.Popen(
        program("headrace.stores.sqlite_reader"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pipesize=PIPE_BYTES,
    )
    with process:
        try:
            if process.stdin is None or process.stdout is None or process.stderr is None:
                raise ReaderEnded("it has no pipes")
            process.stdin.write(msgspec.json.encode(order))
            process.stdin.close()
            with pa.ipc.open_stream(process.stdout) as stream:
                for batch in stream:
                    columns = [_column(*given) for given in zip(batch.columns, order.slices().types, strict=True)]
                    yield columns, int(columns[1].values.max()) + 1
            said = process.stderr.read().decode(errors="replace").strip()
            if process.wait() != 0:
                raise ReaderEnded(said.rpartition("\n")[2] or f"it ended with {process.returncode}")
        except (OSError, pa.ArrowException) as error:
            raise ReaderEnded(str(error)) from error
        finally:
            process.kill()


def _column(array: pa.Array, kind: FieldType) -> Values:
    if kind == "float":
        return Values(array.to_numpy(zero_copy_only=False))
    if not array.null_count:
        return Values(array.to_numpy(zero_copy_only=False))
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    blank = BLANKS["O" if kind == "text" else "b" if kind == "bool" else "i"]
    return Values(array.fill_null(blank).to_numpy(zero_copy_only=False), valid)


class ArrowReader:
    """Reads by ADBC. See Reader."""

    def __init__(self, file: Path) -> None:
        import adbc_driver_sqlite.dbapi as adbc

        self._file = file
        self._inode = file.stat().st_ino
        self._connection = adbc.connect(f"file:{quote(str(file))}?mode=ro", autocommit=True)
        for pragma in (f"busy_timeout = {BUSY_MS}", f"cache_size = -{CACHE_KIB}"):
            self.row(f"PRAGMA {pragma}")

    def row(self, statement: str) -> tuple[Any, ...]:
        """See Reader."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            found: tuple[Any, ...] = cursor.fetchone() or ()
            return found

    def columns(self, statement: str, types: Sequence[FieldType], rows: int) -> pa.Table:
        """See Reader."""
        if self._file.stat().st_ino != self._inode:
            raise OSError("the file was removed and made again")
        with self._connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(4 * rows + SPARE_ROWS)})
            cursor.execute(statement)
            found = cursor.fetch_arrow_table()
        # Where all is missing the type cannot be known.
        return found.cast(_schema(found.column_names, types)).combine_chunks()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _schema(names: Sequence[str], types: Sequence[FieldType]) -> pa.Schema:
    import pyarrow as pa

    arrow: dict[FieldType, pa.DataType] = {
        "float": pa.float64(),
        "int": pa.int64(),
        "time": pa.int64(),
        "bool": pa.bool_(),
        "text": pa.string(),
    }
    return pa.schema([(name, arrow[kind]) for name, kind in zip(names, types, strict=True)])


def main() -> None:
    """Read what standard input orders, and write it to standard output as an Arrow stream."""
    import pyarrow as pa

    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    slices, reader = order.slices(), ArrowReader(Path(order.file))
    names = [str(place) for place in range(len(slices.types))]
    with pa.ipc.new_stream(sys.stdout.buffer, _schema(names, slices.types)) as stream:
        for table, _ in slices.read(reader, order.start_us, order.end_us, order.rows):
            for batch in table.rename_columns(names).to_batches():
                stream.write_batch(batch)
        sys.stdout.buffer.flush()
    reader.close()


if __name__ == "__main__":
    main()
