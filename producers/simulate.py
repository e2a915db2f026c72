"""A fleet of simulated devices: what they measure, what goes wrong, and when it is sent. Pure: time is an argument."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.batch import Batch, Int64s
from headrace.column import Column
from headrace.event_time import EPOCH
from headrace.pipeline.model import Simulate, Topic
from producers import faults
from producers.curves import FieldCurve, tag_values
from producers.faults import MALFORMED_KINDS, NAMES, FaultPlan
from producers.pace import Pace, Schedule
from producers.portion import Portion

BLOCK = 4_096
"""Readings are made in blocks of so many, the same ones whoever asks: hence the same seed, the same readings."""


@dataclass(frozen=True)
class Block:
    """The readings ``first`` to ``first`` + BLOCK - 1, as they are before anything goes wrong."""

    first: int
    ts_us: Int64s
    devices: list[str]
    columns: dict[str, Column]
    faults: NDArray[np.int64]
    faulty: bool


class Fleet:
    """The readings of a declaration, by number: reading n is device n modulo ``devices``, at n / rate.

    A pure function of the declaration and the topic.
    """

    def __init__(self, declared: Simulate, topic: Topic) -> None:
        self.schedule = Schedule(declared.rate)
        self.size = declared.devices
        seed = declared.seed
        self.names = [declared.name.format(n=n, topic=declared.topic) for n in range(1, self.size + 1)]
        self.kinds = {name: field.type for name, field in {**topic.tags, **topic.fields}.items()}
        self._tags = {
            name: tag_values(name, field, declared.curves.get(name), self.names, seed=seed)
            for name, field in topic.tags.items()
        }
        self._curves = [
            FieldCurve(name, field, declared.curves.get(name), devices=self.size, seed=seed)
            for name, field in topic.fields.items()
        ]
        self.plan = FaultPlan(declared.faults, seed=seed)
        self._block: Block | None = None
        self._plans: dict[int, NDArray[np.int64]] = {}

    def block(self, number: int) -> Block:
        """The block that holds reading ``number``."""
        first = number // BLOCK * BLOCK
        if self._block is None or self._block.first != first:
            self._block = self._made(first)
        return self._block

    def fault(self, number: int) -> int:
        """The fault of reading ``number``."""
        return int(self._faults(number // BLOCK)[number % BLOCK])

    def _faults(self, block: int) -> NDArray[np.int64]:
        if block not in self._plans:
            if len(self._plans) > 64:
                self._plans.clear()
            self._plans[block] = self.plan.of_block(block, BLOCK)
        return self._plans[block]

    def _made(self, first: int) -> Block:
        ts_us = self.schedule.times(first, BLOCK)
        places = (np.arange(BLOCK, dtype=np.int64) + first % self.size) % self.size
        listed = places.tolist()
        columns = {
            name: Column.of([values[place] for place in listed], self.kinds[name])
            for name, values in self._tags.items()
        }
        number = first // BLOCK
        for curve in self._curves:
            columns[curve.name] = Column.of(curve.values(number, places, ts_us), self.kinds[curve.name])
        plan = self._faults(number)
        return Block(first, ts_us, [self.names[place] for place in listed], columns, plan, bool(plan.any()))


@dataclass(frozen=True, order=True)
class Held:
    """A reading held back: it is sent after reading ``slot``; ``number`` is its own."""

    slot: int
    number: int
    fault: int
    device: str
    ts_us: int
    values: tuple[Any, ...]


class Simulation:
    """A Source (see producers.portion) of simulated readings.

    Counts: generated, sent, missing, and each fault that came about. Always generated = sent - repeated +
    missing + what is held back, which nothing is after :meth:`drain`. A reading that drain sends early does
    not count as late or out of order.
    """

    def __init__(self, name: str, declared: Simulate, topic: Topic, *, now_us: int) -> None:
        self.name = name
        self.topic_name = declared.topic
        self.topic = topic
        self.columns = declared.columns
        self.linger_us = int(declared.linger)
        self.counts: Counter[str] = Counter()
        self.keeps_place = False
        self._fleet = Fleet(declared, topic)
        schedule = self._schedule = self._fleet.schedule
        start_us = _start_us(declared, now_us)
        self._next = schedule.number(start_us)
        if declared.start is None and declared.count is not None and declared.speed == 0:
            # As fast as possible, from now: the readings that come last are those of now.
            self._next -= declared.count
        self._end = None if declared.count is None else self._next + declared.count
        self._pace = Pace(start_us, now_us, declared.speed)
        self._late_slots = schedule.span(int(declared.faults.late_by))
        self._held: list[Held] = []
        self._spoilt = 0

    def due_us(self) -> int | None:
        """What the clock shows when the next reading is to be sent; None after the last."""
        if self._own_left():
            return self._pace.due(self._schedule.time(self._next))
        if self._held:
            return self._pace.due(self._schedule.time(self._held[0].slot))
        return None

    def take(self, now_us: int, limit: int) -> Portion | None:
        """The readings due at ``now_us`` that have not been taken; at most ``limit`` slots of the schedule."""
        reached = self._pace.reached(now_us)
        if not self._own_left():
            return self._released(self._schedule.number(reached + 1))
        block = self._fleet.block(self._next)
        begin = self._next - block.first
        stop = min(BLOCK, begin + limit)
        if self._end is not None:
            stop = min(stop, self._end - block.first)
        if reached < int(block.ts_us[stop - 1]):
            stop = min(stop, int(np.searchsorted(block.ts_us, reached, side="right")))
        if stop <= begin:
            return None
        self._next = block.first + stop
        self.counts["generated"] += stop - begin
        if block.faulty or (self._held and self._held[0].slot < self._next):
            return self._with_faults(block, begin, stop)
        self.counts["sent"] += stop - begin
        columns = {name: column.take(slice(begin, stop)) for name, column in block.columns.items()}
        return Portion(Batch(block.devices[begin:stop], block.ts_us[begin:stop], columns))

    def drain(self) -> Portion | None:
        """What is held back, in the order of its numbers; nothing is taken after it."""
        self._end = self._next
        held, self._held = sorted(self._held, key=lambda h: h.number), []
        self.counts["sent"] += len(held)
        return self._portion_of(held)

    def mark(self) -> None:
        """Nothing to note: a simulation goes on from now."""

    def _own_left(self) -> bool:
        return self._end is None or self._next < self._end

    def _released(self, before_slot: int) -> Portion | None:
        """What is due of the held readings once the schedule's own have ended."""
        held = []
        while self._held and self._held[0].slot < before_slot:
            held.append(heapq.heappop(self._held))
        self._count(held)
        return self._portion_of(held)

    def _portion_of(self, held: list[Held]) -> Portion | None:
        if not held:
            return None
        columns = {
            name: Column.of([h.values[n] for h in held], kind)
            for n, (name, kind) in enumerate(self._fleet.kinds.items())
        }
        return Portion(Batch([h.device for h in held], np.array([h.ts_us for h in held], np.int64), columns))

    def _count(self, released: list[Held]) -> None:
        self.counts["sent"] += len(released)
        for held in released:
            self.counts[NAMES[held.fault]] += 1

    def _with_faults(self, block: Block, begin: int, stop: int) -> Portion | None:
        """The slots ``begin`` to ``stop`` of a block with everything that goes wrong in them."""
        counts = self.counts
        columns = [block.columns[name] for name in self._fleet.kinds]
        ahead: list[int] = []
        spoilt: dict[int, str] = {}
        # (slot, turn within the slot, place): places beyond the block are those of released readings.
        order = [(place, 0, place) for place in range(begin, stop)]
        keep = np.ones(stop - begin, bool)
        for place in (np.flatnonzero(block.faults[begin:stop]) + begin).tolist():
            fault, number = int(block.faults[place]), block.first + place
            if fault == faults.MISSING:
                keep[place - begin] = False
            elif fault == faults.REPEATED:
                order.append((place, 1, place))
            elif fault == faults.FUTURE:
                ahead.append(place)
            elif fault == faults.MALFORMED:
                spoilt[place] = MALFORMED_KINDS[self._spoilt % len(MALFORMED_KINDS)]
                self._spoilt += 1
            else:
                slot = number + self._late_slots if fault == faults.LATE else self._carrier(number)
                if slot is None:
                    continue
                keep[place - begin] = False
                values = tuple(column[place] for column in columns)
                held = Held(slot, number, fault, block.devices[place], int(block.ts_us[place]), values)
                heapq.heappush(self._held, held)
                continue
            counts[NAMES[fault]] += 1
            if fault == faults.MALFORMED:
                counts[f"malformed_{spoilt[place]}"] += 1
        order = [entry for entry in order if entry[1] or keep[entry[0] - begin]]
        counts["sent"] += len(order)
        released: list[Held] = []
        while self._held and self._held[0].slot < block.first + stop:
            held = heapq.heappop(self._held)
            order.append((held.slot - block.first, 2, BLOCK + len(released)))
            released.append(held)
        self._count(released)
        if not order:
            return None
        order.sort(key=lambda entry: entry[:2])
        return self._ordered(block, [place for _, _, place in order], released, ahead, spoilt)

    def _ordered(
        self, block: Block, places: list[int], released: list[Held], ahead: list[int], spoilt: dict[int, str]
    ) -> Portion:
        # Not joined to the block's: a live fleet comes here every few ms, and a block is long.
        own = np.array(places, np.int64)
        ts_us = block.ts_us[np.minimum(own, BLOCK - 1)]
        devices = [block.devices[place] if place < BLOCK else released[place - BLOCK].device for place in places]
        columns = {}
        for n, (name, kind) in enumerate(self._fleet.kinds.items()):
            values = block.columns[name].tolist()
            listed = [values[p] if p < BLOCK else released[p - BLOCK].values[n] for p in places]
            columns[name] = Column.of(listed, kind)
        if released:
            ts_us[own >= BLOCK] = [held.ts_us for held in released]
        if ahead:
            ts_us[np.isin(own, ahead)] += faults.AHEAD_US
        spoilt_places = {n: spoilt[place] for n, place in enumerate(places) if place in spoilt}
        return Portion(Batch(devices, ts_us, columns), spoilt_places)

    def _carrier(self, number: int) -> int | None:
        """The device's next reading that is sent in its turn: the one to be overtaken by. None: there is none."""
        held = (faults.LATE, faults.MISSING, faults.OUT_OF_ORDER, faults.MALFORMED)
        for turn in range(1, 100):
            carrier = number + turn * self._fleet.size
            if self._end is not None and carrier >= self._end:
                return None
            if self._fleet.fault(carrier) not in held:
                return carrier
        return None


def _start_us(declared: Simulate, now_us: int) -> int:
    if declared.start is None:
        return now_us
    moment = datetime.fromisoformat(declared.start)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - EPOCH) // timedelta(microseconds=1)
