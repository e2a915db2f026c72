"""What the store really holds, asked in plain SQL: SQLite by its own module, TDengine over REST."""

from __future__ import annotations

import base64
import json
import sqlite3
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

Row = tuple[Any, ...]


class Tables(Protocol):
    """Rows of supertables, and the counts that sinks keep."""

    def rows(self, table: str, columns: Sequence[str], key: str, device: str) -> Iterator[Row]:
        """A device's rows; the first of the columns is the time, in µs."""
        ...

    def devices(self, table: str, key: str) -> set[str]:
        """All devices that have rows."""
        ...

    def counts(self) -> dict[tuple[str, int], dict[str, int]]:
        """What the sinks have counted, by topic and partition; ``next_offset`` beside the counts."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class SQLiteTables:
    """The file itself."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)

    def rows(self, table: str, columns: Sequence[str], key: str, device: str) -> Iterator[Row]:
        """See Tables."""
        names = ", ".join(f'"{name}"' for name in columns)
        yield from self._connection.execute(f'SELECT {names} FROM "{table}" WHERE "{key}" = ?', (device,))

    def devices(self, table: str, key: str) -> set[str]:
        """See Tables."""
        return {row[0] for row in self._connection.execute(f'SELECT DISTINCT "{key}" FROM "{table}"')}

    def counts(self) -> dict[tuple[str, int], dict[str, int]]:
        """See Tables."""
        found = self._connection.execute('SELECT topic, partition, next_offset, counts FROM ":progress"')
        return {(topic, part): {**json.loads(counts), "next_offset": upto} for topic, part, upto, counts in found}

    def close(self) -> None:
        """See Tables."""
        self._connection.close()


class TDengineTables:
    """A database over REST."""

    def __init__(self, host: str, port: int, database: str, login: str) -> None:
        self._address, self._database = f"http://{host}:{port}/rest/sql", database
        self._login = "Basic " + base64.b64encode(login.encode()).decode()
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def _ask(self, statement: str) -> list[list[Any]]:
        # S310: the address is that of the suite's own server.
        request = urllib.request.Request(self._address, statement.encode(), {"Authorization": self._login})  # noqa: S310
        with self._open(request, timeout=120) as answer:
            said = json.load(answer)
        if said["code"] != 0:
            raise RuntimeError(f"{statement}: {said}")
        rows: list[list[Any]] = said["data"]
        return rows

    def rows(self, table: str, columns: Sequence[str], key: str, device: str) -> Iterator[Row]:
        """See Tables."""
        times = {columns[0], "end"}
        names = ", ".join(f"CAST(`{name}` AS BIGINT)" if name in times else f"`{name}`" for name in columns)
        for row in self._ask(f"SELECT {names} FROM `{self._database}`.`{table}` WHERE `{key}` = '{device}'"):
            yield tuple(row)

    def devices(self, table: str, key: str) -> set[str]:
        """See Tables."""
        return {row[0] for row in self._ask(f"SELECT DISTINCT `{key}` FROM `{self._database}`.`{table}`")}

    def counts(self) -> dict[tuple[str, int], dict[str, int]]:
        """See Tables."""
        # Of a partition's rows the one with the greatest offset counts.
        found = sorted(
            self._ask(
                f"SELECT `topic`, `partition`, `next_offset`, `counts` FROM `{self._database}`.`_headrace_progress`"
            ),
            key=lambda row: int(row[2]),
        )
        return {(topic, part): {**json.loads(counts), "next_offset": upto} for topic, part, upto, counts in found}

    def close(self) -> None:
        """See Tables: each question is a connection of its own."""
