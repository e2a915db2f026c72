"""``python tests/coverage_by_folder.py``: the share of statements that the last run with coverage ran, by folder."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from coverage import Coverage

ROOT = Path(__file__).parent.parent


def table(ran: Counter[str], there: Counter[str]) -> list[str]:
    """A line a folder, and one of all."""
    lines = [(folder, ran[folder], there[folder]) for folder in sorted(there)]
    lines.append(("all", ran.total(), there.total()))
    width = max(len(folder) for folder, *_ in lines)
    return [f"{name:<{width}} {n / max(of, 1):>7.1%}  {n:>6} of {of:>6} statements" for name, n, of in lines]


def main() -> int:
    """Print it."""
    measured = Coverage()
    measured.load()
    ran, there = Counter[str](), Counter[str]()
    for file in measured.get_data().measured_files():
        _, statements, _, missing, _ = measured.analysis2(file)
        folder = str(Path(file).relative_to(ROOT).parent)
        there[folder] += len(statements)
        ran[folder] += len(statements) - len(missing)
    if not there:
        print("error: nothing was measured\nhint: make coverage", file=sys.stderr)
        return 2
    print("\n".join(table(ran, there)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
