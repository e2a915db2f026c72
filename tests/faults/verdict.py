"""What is said of a run: for a person, and as a line of results.jsonl."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from faults.recount.findings import Findings


@dataclass
class Verdict:
    """Everything that a run has shown."""

    store: str
    broker: str
    guarantee: str
    seed: int
    seconds: float
    circumstances: dict[str, Any]
    findings: Findings = field(default_factory=Findings)
    readings: int = 0
    load: dict[str, Any] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    recovered_s: list[float] = field(default_factory=list)
    drained_s: float | None = None
    verdicts: Counter[str] = field(default_factory=Counter)
    alarms: list[str] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    memory_mb: dict[str, float] = field(default_factory=dict)
    sound_at_end: bool = False

    @property
    def lost(self) -> int:
        """How much is not there."""
        return self.findings.lost.total()

    @property
    def wrong(self) -> int:
        """How much is otherwise than it must be."""
        return self.findings.wrong.total()

    @property
    def false_alarms(self) -> int:
        """How often ``verify`` said that something is wrong when nothing was."""
        return self.verdicts["alarm"] if self.findings.clean else 0

    @property
    def missed_alarms(self) -> int:
        """1 when something is lost or wrong, and ``verify`` says at the end that all is sound."""
        return int(self.sound_at_end and not self.findings.clean)

    @property
    def passed(self) -> bool:
        """Whether nothing at all is to be said against the line."""
        troubles = self.failures or self.deaths or not self.sound_at_end or self.verdicts["alarm"]
        return self.findings.clean and not troubles and self.drained_s is not None

    def record(self) -> dict[str, Any]:
        """The line as it is kept."""
        return {
            "bench": "faults",
            "subject": f"{self.store}, {self.guarantee}",
            "seed": self.seed,
            "passed": self.passed,
            "readings": self.readings,
            "readings_per_s": round(self.readings / max(self.seconds, 1)),
            "seconds": round(self.seconds),
            "lost": self.lost,
            "wrong": self.wrong,
            "false_alarms": self.false_alarms,
            "missed_alarms": self.missed_alarms,
            "verifications": dict(self.verdicts),
            "died": len(self.deaths),
            "failures": len(self.failures),
            "by_what": {"lost": dict(self.findings.lost), "wrong": dict(self.findings.wrong)},
            "compared": dict(self.findings.compared),
            "duplicates": {what: n for what, n in self.findings.duplicates.items() if n},
            "events": dict(self.events),
            "recovery_s": {
                "median": round(statistics.median(self.recovered_s), 1),
                "greatest": round(max(self.recovered_s), 1),
            }
            if self.recovered_s
            else {},
            "drained_s": None if self.drained_s is None else round(self.drained_s, 1),
            "memory_mb": self.memory_mb,
            "written": self.load,
            **self.circumstances,
        }

    def text(self) -> str:
        """What a person is told."""
        said = [
            f"{'PASSED' if self.passed else 'FAILED'}: {self.store}, {self.guarantee}, seed {self.seed},"
            f" {self.broker}: {self.readings:,} readings in {self.seconds:.0f} s"
            f" ({self.readings / max(self.seconds, 1):,.0f} a second), {self.events.total()} disturbances",
            f"lost {self.lost}, wrong {self.wrong}, false alarms {self.false_alarms} of"
            f" {self.verdicts.total()} verifications {dict(self.verdicts)}, died {len(self.deaths)}",
            "compared: " + ", ".join(f"{n:,} {what}" for what, n in self.findings.compared.items()),
            "duplicates: "
            + (", ".join(f"{n:,} {what}" for what, n in self.findings.duplicates.items() if n) or "none"),
        ]
        if self.recovered_s:
            said.append(
                f"recovery: median {statistics.median(self.recovered_s):.1f} s, greatest {max(self.recovered_s):.1f} s"
            )
        for counted, word in ((self.findings.lost, "lost"), (self.findings.wrong, "wrong")):
            said += [f"{word}: {n:,} {what}" for what, n in counted.items()]
        for kind, examples in self.findings.examples.items():
            said += [f"  {kind}: {example}" for example in examples]
        said += [f"stood still: {failure}" for failure in self.failures]
        said += [f"died: {death}" for death in self.deaths[:10]]
        said += [f"verify: {alarm}" for alarm in self.alarms[:10]]
        if not self.sound_at_end:
            said.append("verify does not say that the line is sound at the end")
        if self.drained_s is None:
            said.append("the line was not worked off at the end")
        return "\n".join(said)
