"""The store in TDengine, over taosAdapter's websocket."""

from headrace.stores.tdengine.store import TDengineStore

__all__ = ["TDengineStore"]
