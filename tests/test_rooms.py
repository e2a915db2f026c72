"""The rooms of the house: who may import whom, what is public, and that a user's own folders are not in the way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import headrace
import headrace.testing

ROOT = Path(__file__).parent.parent
STAGES = ("producers", "processors", "sinks", "viewer")
FACADE = "headrace.testing"
"""The one module of what is shared that reaches up into a stage."""


def modules() -> dict[str, Path]:
    """Every module of the project, by its dotted name."""
    found = {}
    for room in ("headrace", *STAGES):
        for file in (ROOT / room).rglob("*.py"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = file
    return found


def imported(name: str, file: Path, known: dict[str, Path]) -> set[str]:
    """The project's modules that one imports: anywhere in it, for types alone too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{name}: imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return {module for module in found if module in known and module != name}


def test_no_stage_imports_another_and_what_they_share_imports_none() -> None:
    known = modules()
    assert len(known) > 100
    for name, file in known.items():
        room = name.partition(".")[0]
        for other in imported(name, file, known):
            there = other.partition(".")[0]
            assert there in (room, "headrace") or name == FACADE, f"{name} imports {other}"
            assert other != FACADE, f"{name} imports {FACADE}, which is for users"


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    # A package's front names what is inside it, and is imported with whatever is.
    fronts = {name for name, file in known.items() if file.name == "__init__.py"}
    graph = {name: imported(name, file, known) for name, file in known.items()}
    inside = {
        name: {o for o in others if not (o in fronts and name.startswith(f"{o}."))} for name, others in graph.items()
    }
    TopologicalSorter(inside).prepare()


@pytest.mark.parametrize("module", [headrace, headrace.testing], ids=lambda module: module.__name__)
def test_public_names_are_sorted_and_there(module: object) -> None:
    names: list[str] = module.__all__
    assert names == sorted(names)
    for name in names:
        assert getattr(module, name) is not None


def test_the_public_names_are_these() -> None:
    """Who takes one away breaks somebody's program: say so in the changelog."""
    assert headrace.__all__ == [
        "Batch", "Duration", "HeadraceError", "Mistake", "Pipeline", "PipelineError", "Store", "__version__", "load",
        "open_store", "parse",
    ]  # fmt: skip
    assert headrace.testing.__all__ == ["Late", "Reading", "StreamRun", "Window", "windows_of"]
    with pytest.raises(AttributeError, match="no attribute 'dump'"):
        _ = headrace.dump


def test_types_are_for_users_too() -> None:
    for room in ("headrace", *STAGES):
        assert (ROOT / room / "py.typed").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", [["--version"], ["check"], *([stage, "--help"] for stage in STAGES)], ids=" ".join)
def test_a_users_own_folders_are_not_in_the_way(tmp_path: Path, command: list[str]) -> None:
    for room in ("headrace", *STAGES):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise SystemExit('a folder of the user was imported')\n")
    (tmp_path / "pipeline.toml").write_text('[topics.meters]\nfields = { current = "float" }\n')
    script = "import sys; from headrace.cli import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", script, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "a folder of the user" not in ended.stderr
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_nor_when_the_flags_of_a_stage_are_completed(tmp_path: Path, stage: str) -> None:
    (tmp_path / stage).mkdir()
    (tmp_path / stage / "__init__.py").write_text("raise SystemExit('a folder of the user was imported')\n")
    line = "\n".join(("headrace", stage, "--pipe"))
    ended = subprocess.run(
        [sys.executable, "-P", "-c", "import sys; from headrace.cli import main; sys.exit(main())"],
        cwd=tmp_path,
        env={**os.environ, "_HEADRACE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--pipeline" in ended.stdout, ended.stderr
