"""The stores: one port, two adapters, chosen by the URL."""

from __future__ import annotations

from headrace.errors import SettingsError
from headrace.stores.port import TOO_OLD, Columns, Position, Progress, Store, Tail, too_old

__all__ = ["TOO_OLD", "Columns", "Position", "Progress", "Store", "Tail", "open_store", "too_old"]


def open_store(url: str, *, readonly: bool = False) -> Store:
    """The store at ``sqlite:///PATH`` or ``taosws://user:password@host:port/database``.

    ``readonly`` is for viewers: such a store never makes anything, and waits (StoreUnavailable) for the sink
    to have made it. Raises SettingsError for another URL, StoreUnavailable when nothing answers there.
    """
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        from headrace.stores.sqlite import SQLiteStore

        return SQLiteStore(url, readonly=readonly)
    if scheme == "taosws":
        from headrace.stores.tdengine import TDengineStore

        return TDengineStore(url, readonly=readonly)
    raise SettingsError(
        f"--store is {url!r}",
        hint="write sqlite:///PATH or taosws://USER:PASSWORD@HOST:PORT/DATABASE",
    )
