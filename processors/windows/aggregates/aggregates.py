"""All of a stream's aggregates as a commutative monoid over columns: fold readings in, merge partials, read results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from headrace.batch import Int64s
from headrace.column import Column
from headrace.errors import StateError
from headrace.field_types import FieldType
from headrace.pipeline.model import Aggregate
from headrace.pipeline.tables import ORDERED_AGGREGATES
from processors.windows.aggregates.counters import Counters
from processors.windows.aggregates.distincts import Distincts, exact_distinct
from processors.windows.aggregates.family import (
    COUNT,
    MISSING,
    NEVER_SINCE,
    NEVER_YET,
    Array,
    Family,
    PartialColumn,
    Partials,
    Readings,
    Segments,
)
from processors.windows.aggregates.first_last import FirstLast
from processors.windows.aggregates.measure import Measure
from processors.windows.aggregates.min_max import MinMax
from processors.windows.aggregates.quantiles import Quantiles, exact_quantile
from processors.windows.aggregates.sums import Sums

_PLAIN: tuple[type[Family], ...] = (Sums, MinMax, FirstLast, Counters)
_SKETCHED: tuple[type[Family], ...] = (Quantiles, Distincts)

FROM = "from_us"
UPTO = "upto_us"


def exact_results(measure: Measure, aggregate: Aggregate, parts: Iterable[Array]) -> Column:
    """The :func:`exact` quantile, or distinct, of each of the parts: values of the measured field."""
    kind: FieldType = "int" if aggregate == "distinct" else measure.type
    return Column.of([exact(aggregate, values) for values in parts], kind)


def exact(aggregate: Aggregate, values: Array) -> float | int | None:
    """A quantile or distinct of n present values; of none None, or 0 for distinct. KeyError for another aggregate."""
    return exact_distinct(values) if aggregate == "distinct" else exact_quantile(aggregate, values)


class Aggregates:
    """The columns that a stream's measures need, and what is done with them.

    Partials are columns of equal length: ``count`` (readings, with or without values), with ``times`` also
    ``from_us`` and ``upto_us`` (event time of the first and the last of them), and the fields' parts. They merge
    in any order and grouping to the same results, bit by bit: all but the sketches of quantiles beyond their exact
    size. If ``ordered``, folds come to a row in the order of time and only partials of stretches of time
    that do not overlap are merged; readings of equal time are taken in the order they come in.

    Without ``sketches``, quantiles and distinct are left out: they are :func:`exact`'s.
    """

    def __init__(self, measures: Sequence[Measure], *, times: bool = False, sketches: bool = True) -> None:
        self.measures = tuple(measures)
        self.ordered = any(measure.asks(*ORDERED_AGGREGATES) for measure in self.measures)
        """Whether the order of the readings matters."""
        self._families = {
            measure.field: _families(measure, _PLAIN + _SKETCHED if sketches else _PLAIN) for measure in self.measures
        }
        self._given: list[tuple[str, Aggregate, Family]] = [
            (f"{measure.field}_{aggregate}", aggregate, family)
            for measure in self.measures
            for aggregate in measure.aggregates
            for family in self._families[measure.field]
            if aggregate in family.gives
        ]
        self._common: dict[str, tuple[PartialColumn, np.ufunc]] = {COUNT: (PartialColumn(np.int64, 0), np.add)}
        if times:
            self._common[FROM] = (PartialColumn(np.int64, NEVER_YET), np.minimum)
            self._common[UPTO] = (PartialColumn(np.int64, NEVER_SINCE), np.maximum)
        self._common |= {f"{m.field}.{MISSING}": (PartialColumn(np.int64, 0), np.add) for m in self.measures}
        self._parts: dict[str, PartialColumn] = {name: part for name, (part, _) in self._common.items()}
        for family in self._all():
            self._parts |= family.parts

    @property
    def dtypes(self) -> dict[str, Any]:
        """The numpy type of each column."""
        return {name: part.dtype for name, part in self._parts.items()}

    def empty(self, n: int) -> Partials:
        """n partials without readings."""
        return {name: part.empty(n) for name, part in self._parts.items()}

    def reset(self, partials: Partials, rows: Int64s | Sequence[int]) -> None:
        """Make these rows partials without readings, in place."""
        for name, part in self._parts.items():
            partials[name][rows] = part.neutral

    def fold(self, partials: Partials, rows: Int64s, ts_us: Int64s, columns: Mapping[str, Column]) -> None:
        """Add n readings to the rows (n places in the partials, repeats welcome), in place.

        ``columns`` has the n values of each measured field; KeyError if one is not there.
        """
        if not len(rows):
            return
        if FROM in self._common:
            np.minimum.at(partials[FROM], rows, ts_us)
            np.maximum.at(partials[UPTO], rows, ts_us)
        readings = Readings(rows, ts_us, ordered=self.ordered)
        # What overflows becomes None in the end.
        with np.errstate(over="ignore", invalid="ignore"):
            for field, families in self._families.items():
                column, values, of_field = columns[field], columns[field].values, readings
                if column.valid is not None:
                    places = np.flatnonzero(column.valid)
                    values, of_field = values[places], readings.at(places)
                if len(of_field):
                    for family in families:
                        family.fold(partials, of_field, values)
        # The families have needed to know how many there were before.
        np.add.at(partials[COUNT], rows, 1)
        for field in self._families:
            present = columns[field].valid
            if present is not None:
                np.add.at(partials[f"{field}.{MISSING}"], rows[~present], 1)

    def lift(self, ts_us: Int64s, columns: Mapping[str, Column]) -> Partials:
        """n readings as n partials."""
        partials = self.empty(len(ts_us))
        self.fold(partials, np.arange(len(ts_us)), ts_us, columns)
        return partials

    def reduce(self, partials: Partials, begins: Int64s) -> Partials:
        """Merge rows ``begins[i]`` up to ``begins[i + 1]`` (the last: to the end) into one, for each i.

        A segment may be empty. Rows ahead of the first one are left out.
        """
        n = len(partials[COUNT])
        filled = np.diff(begins, append=n) > 0
        if not filled.all():
            return self._among_empty(partials, begins, filled)
        if not len(begins):
            return self.empty(0)
        if begins[0]:
            partials = {name: partials[name][begins[0] :] for name in self._parts}
            n, begins = n - int(begins[0]), begins - begins[0]
        segments = Segments(begins, n)
        merged = {name: ufunc.reduceat(partials[name], begins) for name, (_, ufunc) in self._common.items()}
        with np.errstate(over="ignore", invalid="ignore"):
            for family in self._all():
                merged |= family.reduce(partials, segments)
        return merged

    def pair(self, left: Partials, right: Partials) -> Partials:
        """Merge two times k partials row by row; if ``ordered``, left has the earlier ones."""
        merged = {name: ufunc(left[name], right[name]) for name, (_, ufunc) in self._common.items()}
        with np.errstate(over="ignore", invalid="ignore"):
            for family in self._all():
                merged |= family.pair(left, right)
        return merged

    def results(self, partials: Partials) -> dict[str, Column]:
        """``count`` and FIELD_AGGREGATE of each row; the partials' arrays may be part of them.

        Missing is what no value was seen of (but count, missing and distinct are 0), a whole number beyond 64 bits
        and a float that has overflowed.
        """
        results = {COUNT: Column(partials[COUNT])}
        with np.errstate(over="ignore", invalid="ignore"):
            for name, aggregate, family in self._given:
                results[name] = family.result(aggregate, partials)
        return results

    def take(self, partials: Partials, rows: Int64s) -> Partials:
        """These rows, as copies that share nothing with the partials."""
        taken = {name: partials[name][rows] for name in self._common}
        for family in self._all():
            taken |= family.take(partials, rows)
        return taken

    def packed(self, partials: Partials) -> dict[str, Any]:
        """The partials as MessagePack has them: little-endian bytes; lists of texts; lists of sketches' bytes."""
        packed = {name: part.packed(partials[name]) for name, (part, _) in self._common.items()}
        for family in self._all():
            packed |= family.packed(partials)
        return packed

    def unpacked(self, packed: Mapping[str, Any]) -> Partials:
        """The reverse of :meth:`packed`. StateError for what was packed with other measures, or is damaged."""
        if packed.keys() != self._parts.keys():
            differing = ", ".join(sorted(packed.keys() ^ self._parts.keys()))
            raise _not_ours(f"they differ in {differing}")
        try:
            n = len(self._parts[COUNT].unpacked(packed[COUNT], 0))
            partials = {name: part.unpacked(packed[name], n) for name, (part, _) in self._common.items()}
            for family in self._all():
                partials |= family.unpacked(dict(packed), n)
        except (TypeError, ValueError, RuntimeError, IndexError) as error:
            raise _not_ours(str(error)) from error
        if len({len(column) for column in partials.values()}) > 1:
            raise _not_ours("their columns are of different lengths")
        return partials

    def _among_empty(self, partials: Partials, begins: Int64s, filled: Array) -> Partials:
        """Segments of which some are empty."""
        merged = self.empty(len(begins))
        for name, column in self.reduce(partials, begins[filled]).items():
            merged[name][filled] = column
        return merged

    def _all(self) -> Iterable[Family]:
        return (family for families in self._families.values() for family in families)


def _families(measure: Measure, kinds: Sequence[type[Family]]) -> list[Family]:
    """The families that a field's aggregates need."""
    return [kind(measure) for kind in kinds if measure.asks(*kind.gives)]


def _not_ours(problem: str) -> StateError:
    return StateError(
        f"partial aggregates do not fit the stream as it is declared now: {problem}",
        hint="start over, or rebuild the state from the topic",
    )
