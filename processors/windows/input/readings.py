"""The readings of a batch as windows take them: whose they are, their times, their fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.batch import Int64s
from processors.windows.column import Column, as_array


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

    def packed(self) -> dict[str, Any]:
        """For MessagePack: little-endian bytes, lists of texts."""
        return {
            "slots": self.slots.astype("<i8").tobytes(),
            "devices": self.devices.astype("<i8").tobytes(),
            "ts_us": self.ts_us.astype("<i8").tobytes(),
            "columns": {
                name: [
                    column.values.tolist() if column.values.dtype == object else column.values.tobytes(),
                    None if column.present is None else column.present.tobytes(),
                ]
                for name, column in self.columns.items()
            },
        }

    @classmethod
    def unpacked(cls, packed: Mapping[str, Any], dtypes: Mapping[str, Any]) -> Readings:
        """What was packed, its columns being of these numpy types."""
        slots, devices, ts_us = (
            np.frombuffer(packed[name], "<i8").astype(np.int64) for name in ("slots", "devices", "ts_us")
        )
        columns = {
            name: Column(
                as_array(values, object) if isinstance(values, list) else np.frombuffer(values, dtypes[name]).copy(),
                None if present is None else np.frombuffer(present, np.bool_).copy(),
            )
            for name, (values, present) in packed["columns"].items()
        }
        return cls(slots, devices, ts_us, columns)
