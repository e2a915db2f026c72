"""The state of windows as bytes in pieces: what is written when, and what comes back."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
import pytest
from window_oracle import Driver
from window_readings import FOR_EVER_US, SECOND, Reading, Tick, at, spec_of
from window_situations import counted, read, said, windows

from headrace.errors import StateError
from processors.windows import WindowOperator
from processors.windows.state import BUCKET, PIECE_BYTES, changed_pieces, restore

IN_PARTS = b"\1"


def put_away(windowed: WindowOperator, kept: dict[str, bytes], next_offset: int = 0) -> list[str]:
    """Write what has changed into ``kept``; the names of the pieces but those of the repeats."""
    pieces = dict(changed_pieces(windowed, next_offset))
    for name, piece in pieces.items():
        if piece is None:
            kept.pop(name, None)
        else:
            kept[name] = piece
    return sorted(name for name in pieces if not name.startswith("seen"))


def restarted(driver: Driver, kept: dict[str, bytes] | None = None) -> None:
    kept = {} if kept is None else kept
    put_away(driver.windowed, kept)
    driver.windowed, _ = restore(driver.windowed.spec, kept.get)


def fleet(count: int, seconds: float) -> list[Reading]:
    return [
        Reading(f"meter-{n}", at(seconds), {"energy": n, "note": f"n{n}", "room": f"r{n % 3}"}) for n in range(count)
    ]


def test_nothing_put_away_is_a_fresh_start() -> None:
    windowed, next_offset = restore(spec_of(), dict[str, bytes]().get)
    assert next_offset == -1
    assert (windowed.counts["read"], windowed.intake.devices.names) == (0, [])


def test_only_the_buckets_that_were_touched_are_written() -> None:
    driver, kept = windows(idle="1h"), dict[str, bytes]()
    driver.read(fleet(3 * BUCKET, 1))
    parts = [f"{kind}.{bucket}" for kind in ("names", "open", "progress") for bucket in range(3)]
    assert put_away(driver.windowed, kept) == ["meta", *parts]
    assert put_away(driver.windowed, kept) == ["meta"]
    driver.read([Reading(f"meter-{BUCKET + 5}", at(2))])
    assert put_away(driver.windowed, kept) == ["meta", "open.1", "progress.1"]
    driver.read([Reading(f"meter-{BUCKET + 5}", at(3), {"room": "moved"})])
    assert put_away(driver.windowed, kept) == ["meta", "names.1", "open.1", "progress.1"]
    driver.read([Reading("a new one", at(3))])
    assert put_away(driver.windowed, kept) == ["meta", "names.3", "open.3", "progress.3"]


def test_a_reading_that_is_left_out_moves_its_device_and_changes_no_window() -> None:
    driver, kept = windows(where="energy > 1"), dict[str, bytes]()
    driver.read([read("a", 1, energy=2), read("b", 1, energy=1)])
    put_away(driver.windowed, kept)
    driver.read([read("a", 2, energy=1)])
    assert put_away(driver.windowed, kept) == ["meta", "progress.0"]
    driver.windowed, _ = restore(driver.windowed.spec, kept.get)
    driver.read([read("a", 10)])
    assert said(driver, "count") == {("a", 0.0): 1}


@pytest.mark.parametrize("by", ['["device"]', '["room"]'])
def test_a_group_that_only_sent_what_is_left_out_is_not_silent_after_a_restart(by: str) -> None:
    driver, kept = windows('kind = "state", field = "door"', where="energy > 1", idle="10s", by=by), dict[str, bytes]()
    driver.read([read("a", 0, energy=2, door=True, room="r"), read("b", 0, room="s")])
    put_away(driver.windowed, kept)
    driver.read([read("a", 9, energy=1)])
    put_away(driver.windowed, kept)
    driver.windowed, _ = restore(driver.windowed.spec, kept.get)
    assert driver.read([read("b", 19)]) == {}
    assert len(driver.read([read("b", 19.1)])) == 1


def test_groups_have_pieces_of_their_own() -> None:
    driver, kept = windows(by='["note"]', idle="1h"), dict[str, bytes]()
    driver.read([read("a", n / 1_000, note=f"{n}") for n in range(BUCKET)])
    assert put_away(driver.windowed, kept) == ["groups.0", "meta", "names.0", "open.0", "progress.0"]
    driver.read([read("a", 2, note="0"), read("a", 3, note="another")])
    assert put_away(driver.windowed, kept) == ["groups.1", "meta", "open.0", "open.1", "progress.0"]
    driver.windowed, _ = restore(driver.windowed.spec, kept.get)
    driver.run([Tick(FOR_EVER_US)])
    assert said(driver, "count")["0", 0.0] == 2
    assert len(driver.closed) == BUCKET + 1


def test_pieces_of_closed_repeats_are_deleted() -> None:
    driver, kept = windows(), dict[str, bytes]()
    most = 0
    for second in range(0, 4_000, 10):
        driver.read(fleet(20, second))
        put_away(driver.windowed, kept)
        most = max(most, len(kept))
    assert most < 60
    assert {name for name in kept if not name.startswith("seen")} == {"meta", "names.0", "open.0", "progress.0"}


def test_windows_that_a_tick_closes_are_gone_from_the_state_too() -> None:
    driver, kept = windows(), dict[str, bytes]()
    driver.read(fleet(BUCKET + 1, 1))
    put_away(driver.windowed, kept)
    assert len(driver.tick(Tick(60 * SECOND))) == BUCKET + 1
    put_away(driver.windowed, kept)
    windowed, _ = restore(driver.windowed.spec, kept.get)
    assert windowed.gauges["open"] == 0
    assert windowed.counts["closed"] == BUCKET + 1


def test_silence_goes_on_from_where_it_was() -> None:
    driver = windows(idle="30s")
    driver.read([Reading("a", at(9))])
    driver.tick(Tick(20 * SECOND))
    restarted(driver)
    assert driver.tick(Tick(10 * SECOND)) == {}
    assert len(driver.tick(Tick(SECOND))) == 1


def test_many_devices_over_several_buckets_come_back_with_their_windows() -> None:
    driver, kept = windows(), dict[str, bytes]()
    for second in (1, 2):
        driver.read(fleet(600, second))
        restarted(driver, kept)
    driver.read(fleet(600, 10))
    assert len(driver.closed) == 600
    assert driver.closed["meter-599", at(0)]["energy_sum"] == 2 * 599
    assert driver.closed["meter-599", at(0)]["note_last"] == "n599"
    assert driver.tags["meter-599", at(0)] == {"room": f"r{599 % 3}"}


@pytest.mark.parametrize("grace", ["0s", "3s"])
@pytest.mark.parametrize(
    "window",
    [
        'kind = "hopping", size = "10s", step = "4s"',
        'kind = "sliding", size = "5s"',
        'kind = "session", gap = "4s", longest = "9s"',
        'kind = "state", field = "note"',
        'kind = "state", field = "door"',
        'kind = "count", count = 4, step = 3',
        'kind = "event", start = "energy = 1", end = "energy = 5"',
    ],
)
@pytest.mark.parametrize("by", ["", '["room"]'])
def test_windows_go_on_after_a_restart_before_every_reading(window: str, grace: str, by: str) -> None:
    settings = {"by": by} if by else {}
    events = [
        read("ab"[n % 2], n * 1.5, energy=n % 6, note="xxy"[n % 3], door=n % 5 > 1, room=f"r{n % 2}") for n in range(20)
    ]
    unbroken, broken = windows(window, grace=grace, **settings), windows(window, grace=grace, **settings)
    kept = dict[str, bytes]()
    for event in events:
        unbroken.read([event])
        restarted(broken, kept)
        broken.read([event])
        # What is put away is rid of the repeats that need not be watched any more.
        assert {**broken.windowed.gauges, "remembered": 0} == {**unbroken.windowed.gauges, "remembered": 0}
    for driver in (unbroken, broken):
        driver.run([Tick(FOR_EVER_US)])
    assert len(broken.closed) > 3
    assert broken.closed == unbroken.closed
    assert broken.windowed.counts == unbroken.windowed.counts


def test_a_stream_that_is_declared_otherwise_does_not_take_the_state() -> None:
    driver, kept = windows(), dict[str, bytes]()
    driver.read(fleet(1, 1))
    put_away(driver.windowed, kept)
    tumbling = 'kind = "tumbling", size = "10s"'
    others: list[Any] = [
        spec_of('kind = "tumbling", size = "20s"'),
        spec_of('kind = "hopping", size = "10s", step = "10s"'),
        spec_of('kind = "tumbling", size = "10s", offset = "1s"'),
        spec_of(fields=["current"]),
        spec_of(tumbling, by='["room"]'),
        spec_of(tumbling, where="current > 1"),
        spec_of(tumbling, computed='{ power = "current * 2" }'),
        spec_of(tumbling, repeats='"keep"'),
    ]
    for other in others:
        with pytest.raises(StateError, match="another declaration") as refused:
            restore(other, kept.get)
        assert "--reset-state" in refused.value.hint
    # How long to wait, and when to emit, may change.
    windowed, _ = restore(spec_of(tumbling, grace="5s", idle="1m", emit='"at-once"', late='"heal"'), kept.get)
    assert windowed.counts["read"] == 1


@pytest.mark.parametrize("lost", ["names.1", "progress.1", "seen.0"])
def test_a_piece_that_is_missing_is_named(lost: str) -> None:
    driver, kept = windows(), dict[str, bytes]()
    driver.read(fleet(BUCKET + 1, 1))
    put_away(driver.windowed, kept)
    del kept[lost]
    with pytest.raises(StateError, match=lost.replace(".", r"\.")):
        restore(spec_of(), kept.get)


def test_a_piece_that_is_too_long_for_a_message_is_written_in_parts() -> None:
    driver, kept = windows(), dict[str, bytes]()
    driver.read([read(f"meter-{n}", 1, room=f"{n}" * 2_000) for n in range(BUCKET)])
    assert "names.0.2" in put_away(driver.windowed, kept)
    assert kept["names.0"][:1] == IN_PARTS
    assert max(map(len, kept.values())) <= PIECE_BYTES
    driver.windowed, _ = restore(driver.windowed.spec, kept.get)
    driver.run([Tick(FOR_EVER_US)])
    assert driver.tags["meter-255", at(0)] == {"room": "255" * 2_000}
    lacking = {name: piece for name, piece in kept.items() if name != "names.0.1"}
    with pytest.raises(StateError, match=r"names\.0"):
        restore(driver.windowed.spec, lacking.get)


def test_the_bytes_are_plain_messagepack() -> None:
    driver, kept = windows(), dict[str, bytes]()
    driver.read(fleet(3, 1))
    put_away(driver.windowed, kept)
    for name in ("names.0", "open.0"):
        assert kept[name][:1] == b"\0"
        assert isinstance(msgspec.msgpack.decode(kept[name][1:]), dict)
    assert isinstance(msgspec.msgpack.decode(kept["meta"]), dict)
    # Eight bytes a device.
    assert len(kept["progress.0"]) == 1 + 3 * 8


# ---- what it costs


def written(driver: Driver) -> int:
    """The bytes of the pieces that have changed."""
    return sum(len(name) + len(piece or b"") for name, piece in changed_pieces(driver.windowed, 0))


def test_what_is_written_grows_with_the_devices_touched_and_not_with_those_there_are() -> None:
    costs = []
    for devices in (1_000, 20_000):
        driver = windows(idle="1h", aggregates={"energy": ["sum", "min", "max", "mean"]})
        driver.read(fleet(devices, 1))
        written(driver)
        driver.read(fleet(5, 2))
        costs.append(written(driver))
    assert costs[1] < 1.1 * costs[0] + 100
    driver.read([Reading(f"meter-{n}", at(3)) for n in range(0, 20_000, BUCKET)])
    assert written(driver) > 30 * costs[1]


@pytest.mark.parametrize(
    "window",
    [
        'kind = "tumbling", size = "10s"',
        'kind = "session", gap = "5s"',
        'kind = "event", start = "energy >= 0", end = "energy < 0"',
    ],
)
def test_a_device_and_its_open_window_take_less_than_a_kilobyte(window: str) -> None:
    devices = 20_000
    aggregates = {"energy": ["count", "sum", "min", "max", "mean"], "current": ["count", "sum", "min", "max", "mean"]}
    names = [f"meter-{n}" for n in range(devices)]
    readings = [Reading(name, at(1), {"energy": 1, "current": 1.0, "room": "hall"}) for name in names]
    driver = windows(window, aggregates=aggregates, repeats='"keep"', idle="1h")
    tracemalloc.start()
    try:
        for begin in range(0, devices, 1_000):
            driver.read(readings[begin : begin + 1_000])
        written(driver)
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert driver.windowed.gauges["open"] == devices
    assert taken / devices < 1_024


def test_while_repeats_are_watched_a_reading_takes_16_bytes() -> None:
    driver = windows(aggregates={"energy": ["sum"]}, grace="1h")
    watched = driver.windowed.intake.deduplication
    kept = windows(aggregates={"energy": ["sum"]}, grace="1h", repeats='"keep"')
    assert watched is not None
    batches, size = 200, 1_000
    taken = []
    for one in (kept, driver):
        tracemalloc.start()
        try:
            for n in range(batches):
                one.read([Reading(f"meter-{m % 100}", at(n * 10 + m // 100), {"energy": m}) for m in range(size)])
            taken.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    assert driver.windowed.gauges["remembered"] == counted(driver)["windowed"] == batches * size
    assert (taken[1] - taken[0]) / (batches * size) < 16
    assert watched.nbytes / (batches * size) < 16
