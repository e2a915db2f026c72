"""A viewer whose gate lets everything pass, with a budget as told: to test what stands behind the gate."""

from __future__ import annotations

import argparse
import asyncio
import sys

from headrace.pipeline import Pipeline
from headrace.service import main
from headrace.settings import Settings
from viewer.__main__ import serve
from viewer.gate import Gate
from viewer.perspective_pb2 import Request
from viewer.spending import Budget


class Ungated(Gate):
    """Counts views, refuses nothing."""

    def answer(self, request: bytes) -> None:
        for asked in Request.FromString(request).table_make_view_req:
            self._views.add(asked.view_id)


def run(settings: Settings, pipeline: Pipeline, flags: argparse.Namespace) -> None:
    budget = Budget(work_s=flags.work_s, share=flags.share, memory=flags.memory_mb << 20)
    asyncio.run(serve(pipeline, settings, gate=Ungated, budget=budget, max_cells=None))


def flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work-s", type=float, default=5.0)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--memory-mb", type=int, default=1024)


if __name__ == "__main__":
    sys.exit(main("viewer", "A viewer without a gate.", run, extend=flags))
