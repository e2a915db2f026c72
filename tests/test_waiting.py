"""Waiting for a part: what is told and when, how often it is looked for, and how patience ends."""

from __future__ import annotations

import pytest

from headrace.errors import BrokerError, StoreUnavailable
from headrace.waiting import NotYet, Waiting, wait_for

AWAY = NotYet("the broker at b", BrokerError("no broker answers at b", hint="start it"))


def test_a_wait_is_told_when_it_begins_and_when_it_ends_and_each_time_anew() -> None:
    told: list[str] = []
    waiting = Waiting("it is there", tell=told.append)
    waiting.found()
    assert told == []
    for now_s in range(3):
        waiting.missing(AWAY, now_s)
    assert told == ["waiting for the broker at b"]
    waiting.found()
    waiting.found()
    assert told == ["waiting for the broker at b", "it is there"]
    waiting.missing(AWAY, 9)
    assert told[2:] == ["waiting for the broker at b"]


def test_patience_is_counted_from_the_first_look_in_vain_of_each_wait() -> None:
    waiting = Waiting("it is there", patience_s=10, tell=lambda _: None)
    waiting.missing(AWAY, 100)
    waiting.missing(AWAY, 110)
    waiting.found()
    waiting.missing(AWAY, 200)
    waiting.missing(AWAY, 210)
    with pytest.raises(BrokerError, match="no broker answers at b"):
        waiting.missing(AWAY, 210.1)


def test_who_has_no_limit_waits_on() -> None:
    waiting = Waiting("it is there", tell=lambda _: None)
    for now_s in (0, 1e9):
        waiting.missing(AWAY, now_s)


def test_it_is_looked_for_at_a_pace_until_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    looks, pauses = [AWAY, NotYet("the store: it starts"), None], list[float]()

    def look() -> str:
        if (found := looks.pop(0)) is not None:
            raise found
        return "the store"

    assert wait_for(look, Waiting("it is there"), every_s=0.2, pause=pauses.append) == "the store"
    assert pauses == [0.2, 0.2]
    assert capsys.readouterr() == ("", "waiting for the broker at b\nit is there\n")


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away", hint="wait"), KeyboardInterrupt()], ids=lambda error: type(error).__name__
)
def test_what_else_goes_wrong_ends_the_wait(error: BaseException) -> None:
    def fails() -> None:
        raise error

    def is_away() -> None:
        raise AWAY

    waiting = Waiting("it is there", tell=lambda _: None)
    with pytest.raises(type(error)):
        wait_for(fails, waiting, every_s=0)
    with pytest.raises(type(error)):
        wait_for(is_away, waiting, every_s=0, pause=lambda _: fails())
