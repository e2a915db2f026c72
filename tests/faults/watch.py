"""Looks at the line from outside while it runs: how far it is behind, and what ``headrace verify`` says of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import psutil
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from faults.services import ROOT

SAMPLE_S = 1.0
VERIFY_TIMEOUT_S = 300.0

Place = tuple[str, str, int]
"""A group's place: the group, a topic, a partition."""


class Movement:
    """How the groups of a line get on, by what is seen of their lag. Of the time it knows what it is told."""

    def __init__(self, groups: int, small: int) -> None:
        """``groups``: so many groups there must be; ``small``: a lag of no more messages is none."""
        self._groups, self.small = groups, small
        self.behind: dict[str, int] = {}
        """How many messages each group was behind when it was last seen."""
        self.caught_up_s = 0.0
        """When all groups were last seen not to be behind."""
        self._moved: dict[Place, tuple[int, float]] = {}
        """The committed offset of each place, and when it was last seen to move or to be at the end."""

    def note(self, found: Mapping[Place, tuple[int, int]], now_s: float) -> None:
        """Take what was seen at ``now_s``: by group and partition the committed offset and the end."""
        behind = Counter[str]()
        for place, (committed, end) in found.items():
            behind[place[0]] += end - committed
            if committed >= end or committed != self._moved.get(place, (None,))[0]:
                self._moved[place] = committed, now_s
        self.behind = dict(behind)
        if len(behind) >= self._groups and max(behind.values()) <= self.small:
            self.caught_up_s = now_s

    def standing(self, since_s: float, now_s: float, patience_s: float) -> list[Place]:
        """The places that are behind and have not moved for so long, up to now, since ``since_s`` or later."""
        oldest_s = now_s - patience_s
        return [place for place, (_, moved_s) in self._moved.copy().items() if max(moved_s, since_s) < oldest_s]

    def stands_still(self, since_s: float, now_s: float, patience_s: float) -> bool:
        """Whether a place has stood still for so long, or a group was never seen in that time."""
        if self.standing(since_s, now_s, patience_s):
            return True
        seen = {group for group, _, _ in self._moved.copy()}
        return len(seen) < self._groups and now_s - since_s > patience_s


class Lag:
    """How many messages of the raw topics no group has committed: asked of the broker with plain clients."""

    def __init__(self, address: str, name: str, topics: Mapping[str, int]) -> None:
        """``name``: the groups of the line begin with it; ``topics``: the raw topics with their partitions."""
        quiet: dict[str, Any] = {"bootstrap.servers": address, "enable.metrics.push": False, "log_level": 0}
        self._admin = AdminClient(quiet)
        self._consumer = Consumer({**quiet, "group.id": "faults-watch", "enable.auto.commit": False})
        self._name = name
        self._topics = topics

    def now(self) -> dict[Place, tuple[int, int]] | None:
        """By group and partition the committed offset and the end; None while the broker does not say."""
        try:
            listed = self._admin.list_consumer_groups(request_timeout=3).result(timeout=4)
            groups = [group.group_id for group in listed.valid if group.group_id.startswith(f"{self._name}-")]
            ends = {
                (topic, n): self._consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=3)[1]
                for topic, partitions in self._topics.items()
                for n in range(partitions)
            }
            found = {}
            for group in groups:
                asked = [ConsumerGroupTopicPartitions(group)]
                [answer] = self._admin.list_consumer_group_offsets(asked, request_timeout=3).values()
                committed = {(at.topic, at.partition): at.offset for at in answer.result(timeout=4).topic_partitions}
                for where, end in ends.items():
                    found[group, *where] = max(committed.get(where, 0), 0), end
        except (KafkaException, TimeoutError):
            return None
        return found

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()


class Watch:
    """Samples the lag, and runs ``headrace verify`` again and again, beside the run."""

    def __init__(
        self, lag: Lag, settings: Mapping[str, str], *, groups: int, small: int, verify_every_s: float
    ) -> None:
        """``groups``: so many groups there must be; ``small``: a lag of no more messages is none."""
        self._lag = lag
        self._settings = settings
        self.movement = Movement(groups, small)
        self._verify_every_s = verify_every_s
        self._ended = threading.Event()
        self.verdicts: Counter[str] = Counter()
        """How often verify said ``sound`` or ``alarm``, or could not say (``unanswered``)."""
        self.alarms: list[str] = []
        self._threads = [
            threading.Thread(target=self._sample, name="lag", daemon=True),
            threading.Thread(target=self._verify_again, name="verify", daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop looking; a verify that is under way is waited for."""
        self._ended.set()
        for thread in self._threads:
            thread.join(VERIFY_TIMEOUT_S)

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            found = self._lag.now()
            if found is not None:
                self.movement.note(found, time.monotonic())

    def wait_caught_up(self, patience_s: float, tend: Any = lambda: None) -> float | None:
        """Wait until no group is behind any more; how long that took, or None if one stands still for so long.

        A group that gets on is waited for: how fast it does is the machine's matter, too.
        """
        movement, begun = self.movement, time.monotonic()
        while movement.caught_up_s <= begun:
            if movement.stands_still(begun, time.monotonic(), patience_s):
                return None
            tend()
            time.sleep(0.1)
        return movement.caught_up_s - begun

    def _verify_again(self) -> None:
        pause_s = self._verify_every_s
        while not self._ended.wait(pause_s):
            begun = time.monotonic()
            self.verify()
            # Each recounts everything, so that ever longer pauses keep the cost in bounds.
            pause_s = max(self._verify_every_s, 5 * (time.monotonic() - begun))

    def verify(self) -> tuple[int, str]:
        """Run ``headrace verify`` once; its exit code and what it said."""
        code, said = run([sys.executable, "-m", "headrace.cli", "verify"], self._settings)
        verdict = {0: "sound", 1: "alarm"}.get(code, "unanswered")
        self.verdicts[verdict] += 1
        if verdict == "alarm":
            faults = [line for line in said.splitlines() if line.startswith("fault")]
            self.alarms.append(f"{time.strftime('%H:%M:%S')} " + ("; ".join(faults) or said[-1_000:]))
        return code, said


def run(command: Sequence[str], settings: Mapping[str, str]) -> tuple[int, str]:
    """Run a command in the project's folder; its exit code and output."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VERIFY_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, f"took longer than {VERIFY_TIMEOUT_S:.0f} s"
    return done.returncode, done.stdout.decode(errors="replace")


def memory_mb(pid: int) -> float:
    """The resident memory of a process; 0 if it is gone."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0
