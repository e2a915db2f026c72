"""The readings of a batch as windows take them: whose they are, their times, their fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.batch import Int64s
from headrace.column import Column, as_array


@dataclass(frozen=True)
class Readings:
    """``n`` readings as arrays: the slots of their groups and devices, event times, columns by name."""

    slots: Int64s
    devices: Int64s
    ts_us: Int64s
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(self.slots)

    def take(self, places: Int64s) -> Readings:
        """The readings at these places, in this order."""
        columns = {name: column.take(places) for name, column in self.columns.items()}
        return Readings(self.slots[places], self.devices[places], self.ts_us[places], columns)

    @classmethod
    def joined(cls, parts: Sequence[Readings]) -> Readings:
        """The readings of several, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.slots for part in parts]),
            np.concatenate([part.devices for part in parts]),
            np.concatenate([part.ts_us for part in parts]),
            {name: Column.joined([part.columns[name] for part in parts]) for name in parts[0].columns},
        )

    def by_group_and_time(self) -> Int64s:
        """The places of the readings (there are some) by group and time; those of the same in their order."""
        first_us = int(self.ts_us.min())
        span_us = int(self.ts_us.max()) - first_us + 1
        if span_us * (int(self.slots.max()) + 1) >= 2**63:
            return np.lexsort((self.ts_us, self.slots))
        # One sort in the place of two. The stable one finds the runs that are there, and merges these.
        return np.argsort(self.slots * span_us + (self.ts_us - first_us), kind="stable")

    def sorted(self) -> Readings:
        """The readings by group and time; those of the same in their order."""
        return self.take(self.by_group_and_time())

    def packed(self) -> dict[str, Any]:
        """For MessagePack: little-endian bytes, lists of texts."""
        return {
            "slots": self.slots.astype("<i4").tobytes(),
            # Most groups are devices.
            "devices": None if np.array_equal(self.devices, self.slots) else self.devices.astype("<i4").tobytes(),
            "ts_us": self.ts_us.astype("<i8").tobytes(),
            "columns": {
                name: [
                    column.values.tolist() if column.values.dtype == object else column.values.tobytes(),
                    None if column.valid is None else column.valid.tobytes(),
                ]
                for name, column in self.columns.items()
            },
        }

    @classmethod
    def unpacked(cls, packed: Mapping[str, Any], dtypes: Mapping[str, Any]) -> Readings:
        """What was packed, its columns being of these numpy types."""
        slots = np.frombuffer(packed["slots"], "<i4").astype(np.int64)
        devices = slots if packed["devices"] is None else np.frombuffer(packed["devices"], "<i4").astype(np.int64)
        ts_us = np.frombuffer(packed["ts_us"], "<i8").astype(np.int64)
        columns = {
            name: Column(
                as_array(values, object) if isinstance(values, list) else np.frombuffer(values, dtypes[name]).copy(),
                None if present is None else np.frombuffer(present, np.bool_).copy(),
            )
            for name, (values, present) in packed["columns"].items()
        }
        return cls(slots, devices, ts_us, columns)
