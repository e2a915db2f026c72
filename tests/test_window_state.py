"""The state of windows as bytes in pieces: put away and restored anywhere, nothing changes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_windows import cut_lists, event_lists, specs
from window_oracle import FOR_EVER_US, SECOND, Driver, Event, Reading, Tick, at, spec_of

from headrace.errors import StateError
from processors.windows import Windowed, WindowSpec
from processors.windows.state import changed_pieces, restore
from processors.windows.windowed import BUCKET


def put_away(windowed: Windowed, kept: dict[str, bytes], next_offset: int = 0) -> list[str]:
    """Write what has changed into ``kept``; the names of the pieces."""
    pieces = dict(changed_pieces(windowed, next_offset))
    kept.update(pieces)
    return sorted(pieces)


def fleet(count: int, seconds: float) -> list[Reading]:
    return [
        Reading(f"meter-{n}", at(seconds), {"energy": n, "note": f"n{n}", "room": f"r{n % 3}"}) for n in range(count)
    ]


@given(specs, event_lists, cut_lists, st.lists(st.integers(0, 40), max_size=5), st.booleans())
def test_a_restore_at_any_point_changes_nothing(
    spec: WindowSpec, events: list[Event], cuts: list[int], stops: list[int], forget: bool
) -> None:
    events = [*events, Tick(FOR_EVER_US)]
    unbroken = Driver(Windowed(spec)).run(events, cuts)
    driver, kept, last = Driver(Windowed(spec)), dict[str, bytes](), 0
    for stop in [*sorted(min(stop, len(events)) for stop in stops), len(events)]:
        driver.run(events[last:stop], [cut - last for cut in cuts])
        last = stop
        put_away(driver.windowed, kept, stop)
        if forget:
            counts, clock_us, devices = driver.windowed.counts, driver.windowed.clock_us, driver.windowed.devices
            driver.windowed, next_offset = restore(spec, kept.get)
            assert next_offset == stop
            assert (driver.windowed.counts, driver.windowed.clock_us) == (counts, clock_us)
            assert (driver.windowed.devices.names, driver.windowed.devices.tags) == (devices.names, devices.tags)
    assert driver.closed == unbroken.closed
    assert driver.windowed.counts == unbroken.windowed.counts


def test_nothing_put_away_is_a_fresh_start() -> None:
    windowed, next_offset = restore(spec_of(), {}.get)
    assert next_offset == -1
    assert (windowed.counts["read"], windowed.devices.names) == (0, [])


def test_only_the_buckets_that_were_touched_are_written() -> None:
    driver, kept = Driver(Windowed(spec_of(idle="1h"))), dict[str, bytes]()
    driver.read(fleet(3 * BUCKET, 1))
    parts = [f"{kind}.{bucket}" for kind in ("names", "open") for bucket in range(3)]
    assert put_away(driver.windowed, kept) == ["meta", *parts]
    assert put_away(driver.windowed, kept) == ["meta"]
    driver.read([Reading(f"meter-{BUCKET + 5}", at(2))])
    assert put_away(driver.windowed, kept) == ["meta", "open.1"]
    driver.read([Reading(f"meter-{BUCKET + 5}", at(3), {"room": "moved"})])
    assert put_away(driver.windowed, kept) == ["meta", "names.1", "open.1"]
    driver.read([Reading("a new one", at(3))])
    assert put_away(driver.windowed, kept) == ["meta", "names.3", "open.3"]


def test_windows_that_a_tick_closes_are_gone_from_the_state_too() -> None:
    spec, kept = spec_of(), dict[str, bytes]()
    driver = Driver(Windowed(spec))
    driver.read(fleet(BUCKET + 1, 1))
    put_away(driver.windowed, kept)
    assert len(driver.tick(Tick(60 * SECOND))) == BUCKET + 1
    put_away(driver.windowed, kept)
    windowed, _ = restore(spec, kept.get)
    assert len(windowed.accumulators) == 0
    assert windowed.counts["closed"] == BUCKET + 1


def test_silence_goes_on_from_where_it_was() -> None:
    spec, kept = spec_of(idle="30s"), dict[str, bytes]()
    driver = Driver(Windowed(spec))
    driver.read([Reading("a", at(9))])
    driver.tick(Tick(20 * SECOND))
    put_away(driver.windowed, kept)
    driver.windowed, _ = restore(spec, kept.get)
    assert driver.tick(Tick(10 * SECOND)) == {}
    assert len(driver.tick(Tick(SECOND))) == 1


def test_many_devices_over_several_buckets_come_back_with_their_windows() -> None:
    spec, kept = spec_of(), dict[str, bytes]()
    driver = Driver(Windowed(spec))
    for second in (1, 2):
        driver.read(fleet(600, second))
        put_away(driver.windowed, kept)
        driver.windowed, _ = restore(spec, kept.get)
    driver.read(fleet(600, 10))
    assert len(driver.closed) == 600
    assert driver.closed["meter-599", at(0)]["energy_sum"] == 2 * 599
    assert driver.closed["meter-599", at(0)]["note_last"] == "n599"
    assert driver.tags["meter-599", at(0)] == {"room": f"r{599 % 3}"}


def test_a_stream_that_is_declared_otherwise_does_not_take_the_state() -> None:
    kept = dict[str, bytes]()
    driver = Driver(Windowed(spec_of()))
    driver.read(fleet(1, 1))
    put_away(driver.windowed, kept)
    for other in (spec_of(size="20s"), spec_of(fields=["current"])):
        with pytest.raises(StateError, match="another declaration") as refused:
            restore(other, kept.get)
        assert "--reset-state" in refused.value.hint
    # How long to wait, and what to leave out, may change.
    windowed, _ = restore(spec_of(grace="5s", idle="1m", where="current > 1"), kept.get)
    assert windowed.counts["read"] == 1


def test_a_piece_that_is_missing_is_named() -> None:
    kept = dict[str, bytes]()
    driver = Driver(Windowed(spec_of()))
    driver.read(fleet(BUCKET + 1, 1))
    put_away(driver.windowed, kept)
    del kept["open.1"]
    with pytest.raises(StateError, match=r"open\.1"):
        restore(spec_of(), kept.get)


def test_the_bytes_are_plain_messagepack() -> None:
    kept = dict[str, bytes]()
    driver = Driver(Windowed(spec_of()))
    driver.read(fleet(3, 1))
    put_away(driver.windowed, kept)
    for piece in kept.values():
        assert isinstance(msgspec.msgpack.decode(piece), dict)
