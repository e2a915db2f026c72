"""An application that is built again when its broker fails it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException

from headrace.runtime import supervision


class Failing:
    """An application whose broker fails it; as the real one it takes note of signals from when it runs."""

    asked_to_stop = False

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._note)
        raise KafkaException(KafkaError(KafkaError._TRANSPORT))

    def _note(self, *_: object) -> None:
        self.asked_to_stop = True


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Handlers as they were, no pauses, and the collector left alone."""
    monkeypatch.setattr(supervision, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(supervision, "collect_seldom", lambda: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_heeded_while_the_broker_is_waited_for(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Noted by the application that has failed it would be lost, and the next one killed in mid-work."""
    built: list[Failing] = []

    def build() -> Failing:
        assert not built, "it was built again after it was asked to stop"
        built.append(Failing())
        return built[0]

    monkeypatch.setattr(supervision, "wait_for_broker", lambda _: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as ended:
        supervision.keep_running("nowhere", build)  # type: ignore[arg-type]
    assert ended.value.code == 0
    assert len(built) == 1
