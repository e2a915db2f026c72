"""``python -m processors`` with its stages timed, until the topic is read; then what each took, as JSON.

python -m bench.subjects.profiled FLAG ...
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from typing import Any

from bench.stages import STAGES, Spent, Stages, resolve


class Profile:
    """What was spent from the end of the first micro-batch to the end of the last."""

    def __init__(self) -> None:
        self.stages = Stages(STAGES)
        self.messages = 0
        self._begun: tuple[float, float, float] | None = None
        self._ended = (0.0, 0.0, 0.0)
        self._spent = Spent()
        self._asked = False
        owner, attribute, self._process = resolve("processors.streams:TopicStreams.process")
        profile = self

        def process(streams: Any, batch: Any, *arguments: Any, **named: Any) -> Any:
            made = profile._process(streams, batch, *arguments, **named)
            profile._note(0 if batch.idle else len(batch))
            return made

        setattr(owner, attribute, process)

    def _note(self, messages: int) -> None:
        now = time.perf_counter(), time.thread_time(), time.process_time()
        if self._begun is None:
            self._begun = now
            self.stages.reset()
        elif messages:
            self.messages += messages
            self._ended, self._spent = now, self.stages.spent.copy()
        elif not self._asked:
            self._asked = True
            os.kill(os.getpid(), signal.SIGTERM)

    def say(self) -> None:
        """Print it as a line of JSON. Raises RuntimeError when nothing was measured."""
        if self._begun is None or not self.messages:
            raise RuntimeError("nothing was measured: more readings are needed")
        wall_s, thread_s, process_s = (end - begin for end, begin in zip(self._ended, self._begun, strict=True))
        said = {"messages": self.messages, "wall_s": wall_s, "thread_s": thread_s, "process_s": process_s}
        print(json.dumps({**said, "spent": asdict(self._spent)}))


def main(arguments: list[str]) -> int:
    """Run the service with these flags."""
    profile = Profile()
    # After the stages are wrapped: what it imports by name must be the wrapped ones.
    from headrace.service import main as service
    from processors.__main__ import extend, run

    status = service("processors", "With its stages timed.", run, arguments, extend)
    if status == 0:
        profile.say()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
