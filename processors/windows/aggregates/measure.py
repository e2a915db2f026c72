"""What a stream asks for of one field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.column import DTYPES
from headrace.field_types import FieldType
from headrace.pipeline.model import Aggregate


@dataclass(frozen=True)
class Measure:
    """What is aggregated of one field."""

    field: str
    type: FieldType
    aggregates: tuple[Aggregate, ...]

    @property
    def dtype(self) -> Any:
        """The numpy type that the field's values are kept in."""
        return object if self.type == "text" else DTYPES[self.type]

    @property
    def whole(self) -> bool:
        """Whether its values are int64, so that sums and differences are exact."""
        return self.type in ("int", "time")

    def asks(self, *aggregates: Aggregate) -> bool:
        """Whether one of these is among its aggregates."""
        return any(aggregate in self.aggregates for aggregate in aggregates)
