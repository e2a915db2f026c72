"""What stands around the values of messages: keys, and the broker's times."""

from __future__ import annotations

from typing import Protocol

from headrace.pipeline.model import Topic
from headrace.wire.reasons import RefusedError


class Envelope(Protocol):
    """What a decoder asks about the messages beside their values, by place in the batch."""

    def timestamp_ms(self, place: int) -> int:
        """The broker's time of the message, in ms."""
        ...

    def key(self, place: int) -> bytes | None:
        """The message's key."""
        ...

    def all_keyed(self) -> bool:
        """Whether every message has a key, and none is empty."""
        ...


def device_of(key: bytes | None, topic: Topic) -> str:
    """The device that a message's key names. Raises RefusedError where it names none."""
    if not key:
        raise RefusedError("missing_field", "the message has no key, and the key names the device")
    try:
        name = key.decode()
    except UnicodeDecodeError:
        raise RefusedError("wrong_type", "the message's key is not UTF-8 text") from None
    if len(name) > topic.max_name:
        raise RefusedError("too_long", f"the key has {len(name)} characters, and {topic.max_name} may name a device")
    return name
