"""A viewer whose gate lets everything pass, with a budget as told: to test what stands behind the gate."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import typer

from headrace.flags import OF_SERVICES, PAGE
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


def run(
    settings: Settings,
    pipeline: Pipeline,
    *,
    work_s: Annotated[float, typer.Option("--work-s")] = 5.0,
    share: Annotated[float, typer.Option("--share")] = 0.5,
    memory_mb: Annotated[int, typer.Option("--memory-mb")] = 1024,
) -> None:
    budget = Budget(work_s=work_s, share=share, memory=memory_mb << 20)
    asyncio.run(serve(pipeline, settings, gate=Ungated, budget=budget, max_cells=None))


if __name__ == "__main__":
    sys.exit(main("viewer", "A viewer without a gate.", run, settings=(*OF_SERVICES, *PAGE)))
