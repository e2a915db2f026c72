"""A connection to TDengine that says what is wrong in our words, and is made again after every failure."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import taosws

from headrace.errors import SettingsError, StoreError, StoreUnavailable
from headrace.exhaustion import check_file_handles

CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 30
_HINT = (
    "write taosws://USER:PASSWORD@HOST:PORT/DATABASE, with %40 %2F %3F %23 for any @ / ? # in the password;"
    " PORT is taosAdapter's, mostly 6041"
)
_DATABASE = re.compile(r"[a-z_][a-z0-9_]{0,63}")
_CODE = re.compile(r"\[0x([0-9A-Fa-f]{4})\]")

# What TDengine calls: no dnodes yet, starting up, stopping, out of time, a database, a dnode or a leader in the
# making, another change not done yet, a vnode that has stopped or is busy, and a handle that did not outlive an outage.
_AWAY = {0x000B, 0x0117, 0x012C, 0x0130, 0x0131, 0x0334, 0x032C, 0x0396, 0x03B8, 0x03D3, 0x03D7, 0x0503, 0x0529}
_AWAY |= {0x0531, 0x2504, 0xFFFF}
# Database, table or column does not exist; so many sinks have not been there yet.
_NOT_YET = {0x0388, 0x0362, 0x2602, 0x2603, 0x2662, 0x0618, 0x03E0, 0x03E5}
_DENIED = {0x0303, 0x0357, 0x2644}


@dataclass(frozen=True)
class Address:
    """What a ``taosws://`` URL says."""

    host: str
    port: int
    user: str
    password: str
    database: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises SettingsError when the URL cannot be used."""
        try:
            parts = urlsplit(url)
            port = parts.port or 6041
        except ValueError:
            # Its own words may quote what stands where a port is looked for: a piece of the password.
            raise SettingsError(f"--store is {url!r}: its host or port cannot be read", hint=_HINT) from None
        database = parts.path.lstrip("/")
        if parts.scheme != "taosws" or not parts.hostname:
            raise SettingsError(f"--store is {url!r}: it names no TDengine", hint=_HINT)
        if "@" in database:
            raise SettingsError(f"--store is {url!r}: its login cannot be told from its path", hint=_HINT)
        if not _DATABASE.fullmatch(database):
            raise SettingsError(
                f"--store names the database {database!r}",
                hint="write small letters, digits and underscores after the port, as …:6041/headrace",
            )
        user, password = unquote(parts.username or "root"), unquote(parts.password or "taosdata")
        return cls(parts.hostname, port, user, password, database, tuple(parse_qsl(parts.query)))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Connection:
    """One websocket. Every failure drops it: after an outage taosws keeps handles that never work again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.address = Address.parse(url)
        head, _, rest = url.partition("://")
        self._server = f"{head}://{rest.partition('?')[0].rpartition('/')[0]}"
        self._handle: Any = None
        self._statements: dict[str, Any] = {}

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """All rows of the answer."""
        with self.answering():
            # The connection must outlive its result, so it is held by a name here.
            handle = self._connected()
            return [tuple(row) for row in handle.query(statement)]

    def execute(self, statement: str) -> None:
        """Run a statement that has no answer."""
        with self.answering():
            self._connected().execute(statement)

    def execute_on_server(self, statement: str) -> None:
        """Run a statement without a current database, which may not exist."""
        with self.answering():
            self._open(database=False).execute(statement)

    def query_on_server(self, statement: str) -> list[tuple[Any, ...]]:
        """All rows of the answer, asked without a current database."""
        with self.answering():
            handle = self._open(database=False)
            return [tuple(row) for row in handle.query(statement)]

    def insert(self, statement: str, rows: list[Any], before: Callable[[], None]) -> None:
        """Bind views of rows to a prepared INSERT, call ``before``, and run it."""
        with self.answering():
            prepared = self._statements.get(statement)
            if prepared is None:
                prepared = self._connected().stmt2_statement()
                prepared.prepare(statement)
                self._statements[statement] = prepared
            try:
                prepared.bind(rows)
                before()
                prepared.execute()
            except BaseException:
                # What is bound and was not run would be run with what is bound next.
                self._statements.pop(statement, None)
                raise

    def close(self) -> None:
        """Let go of the websocket; the next call opens another."""
        self._statements.clear()
        self._handle = None

    @contextmanager
    def answering(self) -> Iterator[None]:
        """What TDengine raises in here becomes StoreUnavailable or StoreError."""
        try:
            yield
        except taosws.Error as error:
            self.close()
            raise self.meaning(error) from error

    def meaning(self, error: Exception) -> StoreError:
        """The error in our words."""
        text = str(error)
        code = code_of(error)
        if code in _DENIED:
            hint = "give the right user and password in --store"
            return StoreError(f"TDengine at {self.address} refuses the login of {self.address.user}", hint=hint)
        if code in _NOT_YET:
            return StoreUnavailable(
                f"TDengine at {self.address} does not hold that yet: {_plain(text)}",
                hint="start a sink with this pipeline file: it makes what is missing",
            )
        # 0xE…: the websocket; below 0x22: between server and adapter; 0x09…: a leader is being chosen.
        if code is None or code in _AWAY or code >= 0xE000 or code < 0x22 or code >> 8 == 0x09:
            return self.away(_plain(text))
        return StoreError(f"TDengine at {self.address} refuses: {_plain(text)}", hint="run with --debug to see where")

    def away(self, why: str) -> StoreUnavailable:
        """The error that says that TDengine does not answer."""
        check_file_handles()
        return StoreUnavailable(
            f"TDengine at {self.address} does not answer: {why}", hint="start it, or give another store with --store"
        )

    def _connected(self) -> Any:
        if self._handle is None:
            self._handle = self._open(database=True)
        return self._handle

    def _open(self, *, database: bool) -> Any:
        self._knock()
        options = {"read_timeout": str(ANSWER_TIMEOUT_S), "conn_retries": "1", **dict(self.address.options)}
        path = f"/{self.address.database}" if database else ""
        return taosws.connect(f"{self._server}{path}?{urlencode(options)}")

    def _knock(self) -> None:
        """See that an adapter answers: taosws itself would wait long or for ever, and nothing else would run."""
        host = http.client.HTTPConnection(self.address.host, self.address.port, timeout=CONNECT_TIMEOUT_S)
        try:
            host.request("GET", "/-/ping")
            host.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            raise self.away(str(error) or type(error).__name__) from None
        finally:
            host.close()


def code_of(error: BaseException | None) -> int | None:
    """TDengine's number for an error."""
    found = _CODE.search(str(error))
    return int(found[1], 16) if found else None


def _plain(text: str) -> str:
    return _CODE.sub("", text).replace("Internal error:", "").replace("`", "").strip()
