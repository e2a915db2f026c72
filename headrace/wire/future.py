"""Readings that are dated ahead: by more than the future skew they are refused, as a clock is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headrace.batch import Batch, Int64s
from headrace.pipeline.model import Topic
from headrace.wire.envelope import Envelope
from headrace.wire.reasons import Refused


class FutureSkew:
    """How far beyond the broker's time of its message a reading of one topic may be dated."""

    def __init__(self, topic: Topic) -> None:
        self._skew = topic.max_future_skew
        self._skew_us = int(topic.max_future_skew)

    def may_exceed(self, ts_us: Int64s, places: Sequence[int] | Int64s, envelope: Envelope) -> bool:
        """Whether one of the messages may be dated too far ahead, so that each must be looked at.

        One look at the first message's time is enough as long as nothing lies far ahead of it. Where producers,
        not the broker, set the times (topics made elsewhere) these may fall within a batch: by half the skew,
        and every message is still judged by its own.
        """
        if not len(ts_us):
            return False
        return int(ts_us.max()) > envelope.timestamp_ms(int(places[0])) * 1_000 + self._skew_us // 2

    def sift(self, batch: Batch, places: Sequence[int] | Int64s, envelope: Envelope, refused: list[Refused]) -> Batch:
        """The batch without the readings that are dated too far ahead; each is the message at its place, refused."""
        if not self.may_exceed(batch.ts_us, places, envelope):
            return batch
        limits = np.array([envelope.timestamp_ms(place) * 1_000 for place in places]) + self._skew_us
        ahead = batch.ts_us > limits
        refused += [self._refused(places[i], batch.devices[i]) for i in np.flatnonzero(ahead).tolist()]
        return batch.take(np.flatnonzero(~ahead))

    def judge(self, batch: Batch, place: int, envelope: Envelope) -> Refused | None:
        """Why the message at this place is refused, if one of its readings is dated too far ahead."""
        if not len(batch):
            return None
        latest = int(np.argmax(batch.ts_us))
        if int(batch.ts_us[latest]) <= envelope.timestamp_ms(place) * 1_000 + self._skew_us:
            return None
        return self._refused(place, batch.devices[latest])

    def _refused(self, place: int, device: str) -> Refused:
        return Refused(place, "future", f"{device}: dated more than {self._skew} ahead", device)
