"""What is written for people holds: the reference, the README's commands, links, and the files for Docker."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from warm_start import run

from headrace import __version__
from headrace.cli import STAGES
from headrace.pipeline import into, load, parse
from headrace.pipeline.reference import reference
from headrace.settings import Settings, from_flags
from headrace.stores.tdengine.connection import Address

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
PIPELINES = [ROOT / "pipeline.toml", *sorted((ROOT / "examples").glob("*/pipeline.toml"))]
OURS = ("producers", "processors", "sinks", "viewer")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


def commands(program: str) -> list[tuple[str, str]]:
    """Every line of a fenced block of a page that runs the program: (page, line)."""
    found = []
    for page in PAGES:
        for language, block in FENCE.findall(page.read_text()):
            if language not in ("", "sh", "console"):
                continue
            for line in block.splitlines():
                # A remark stands two spaces behind a command.
                text = re.split(r" {2,}", line.strip().removeprefix("$ "))[0]
                if re.match(rf"(?:\.venv/bin/)?{program}\b", text):
                    found.append((page.name, text))
    return found


def headrace(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("headrace.cli", *arguments, cwd=ROOT)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_reference_is_the_one_that_the_types_give():
    assert (ROOT / "docs" / "pipeline.md").read_text() == reference(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("file", PIPELINES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_pipeline_file_that_is_shipped_is_sound_and_finds_its_recordings(file: Path):
    result = headrace("check", "--pipeline", str(file))
    assert result.returncode == 0, result.stderr
    for producer in load(file).producers.values():
        recording = getattr(producer, "file", None)
        assert recording is None or (file.parent / recording).exists()


def test_what_the_readme_declares_can_be_declared():
    declared = [text for language, text in FENCE.findall((ROOT / "README.md").read_text()) if language == "toml"]
    assert declared
    for text in declared:
        assert parse(text).streams


def test_the_targets_that_the_pages_name_are_in_the_makefile():
    named = [(page, shlex.split(line)[1]) for page, line in commands("make")]
    assert {"demo", "test"} <= {target for _, target in named}
    for page, target in named:
        assert target in make_targets(), f"{page} names make {target}"


def test_make_help_tells_every_target():
    if not shutil.which("make"):
        pytest.skip("there is no make")
    # Told which Python: looking for one is not what this is about.
    told = subprocess.run(
        ["make", "help", f"PYTHON={sys.executable}"], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert told.returncode == 0, told.stderr
    assert set(re.findall(r"^ +make ([a-z-]+) +\S", told.stdout, re.MULTILINE)) == make_targets()


def test_the_commands_and_flags_that_the_pages_name_are_understood():
    named = commands("headrace")
    assert len(named) > 5
    helps = {name: headrace(name, "--help").stdout for _, line in named if (name := line.split()[1])[0] != "-"}
    for page, line in named:
        name = line.split()[1]
        if name.startswith("-"):
            continue
        assert helps[name], f"{page} names headrace {name}"
        for flag in re.findall(r"(?<=\s)--[a-z-]+", line):
            assert flag in helps[name], f"{page}: headrace {name} has no {flag}"


def test_each_stage_runs_as_a_module_with_the_flags_of_all_services():
    assert set(STAGES) == set(OURS)
    for stage in OURS:
        told = subprocess.run([sys.executable, "-m", stage, "--help"], capture_output=True, text=True, cwd=ROOT)
        assert told.returncode == 0, told.stderr
        assert {"--pipeline", "--log"} <= set(re.findall(r"--[a-z]+", told.stdout))


def test_the_temperature_example_is_the_well_known_one():
    pipeline = load(ROOT / "examples" / "temperature" / "pipeline.toml")
    raw, stream = pipeline.topics["raw-temperature"], pipeline.streams["temperature_10s"]
    assert (into(pipeline, "temperature_10s"), raw.key_in) == ("agg-temperature", "message")
    assert (str(stream.window.size), str(stream.grace)) == ("10s", "1s")
    assert set(stream.aggregates["value"]) == {"min", "max", "mean"}


def test_the_locks_are_complete_agree_and_name_no_registry():
    everything = _locked("requirements.lock")
    assert _locked("requirements-image.lock").items() <= everything.items()
    assert _locked("requirements-build.lock").items() <= everything.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for requirement in (*project["project"]["dependencies"], *project["build-system"]["requires"]):
        assert re.split(r"[<>=]", requirement)[0] in {name for name, _ in everything}
    for lock in ROOT.glob("requirements*.lock"):
        text = lock.read_text()
        assert "://" not in text
        assert len(re.findall(r"^\S+==", text, re.MULTILINE)) == len(re.findall(r"^\S+==.*\\\n +--hash=", text, re.M))


def _locked(name: str) -> dict[tuple[str, str], str]:
    """What a lock pins: (name, marker): version."""
    lines = re.findall(r"^(\S+)==(\S+)(?: ; (.*?))? \\$", (ROOT / name).read_text(), re.MULTILINE)
    # A marker may say less where fewer packages are asked for: versions of one Python are what must agree.
    return {(package, marker if "python" in marker else ""): version for package, version, marker in lines}


def test_compose_pins_its_images_and_publishes_on_loopback_only():
    services = compose()["services"]
    assert set(services) == {"redpanda", "console", "tdengine", *OURS}
    for name, service in services.items():
        _, _, tag = service["image"].rpartition(":")
        assert re.search(r"\d+\.\d+", tag), f"{name} is not pinned"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"
    assert {services[name]["image"] for name in OURS} == {f"headrace:{__version__}"}


def test_compose_waits_for_what_is_healthy():
    services = compose()["services"]
    for name in OURS:
        for needed, how in services[name]["depends_on"].items():
            assert how["condition"] == "service_healthy"
            assert "healthcheck" in services[needed], f"{name} waits for {needed}"


def test_compose_gives_the_services_settings_that_there_are():
    known = {f"HEADRACE_{name.upper()}" for name in Settings.__dataclass_fields__}
    services = compose()["services"]
    for name in OURS:
        environment = services[name]["environment"]
        assert set(environment) <= known
        settings = from_flags({}, environment)
        assert settings.broker == "redpanda:9092"
        address = Address.parse(settings.store)
        assert (address.host, address.port) == ("tdengine", 6041)
        assert "./pipeline.toml:/app/pipeline.toml:ro" in services[name]["volumes"]


def test_compose_reaches_each_other_by_the_listeners_that_it_declares():
    command = compose()["services"]["redpanda"]["command"]
    assert "--advertise-kafka-addr=inner://redpanda:9092,outer://localhost:19092" in command


def test_docker_reads_the_compose_file():
    if not shutil.which("docker"):
        pytest.skip("there is no docker")
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True)
    if asked.returncode != 0:
        pytest.skip("docker has no compose plugin")
    read = subprocess.run(
        ["docker", "compose", "-f", str(ROOT / "docker-compose.yml"), "config", "--quiet"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
    )
    assert read.returncode == 0, read.stderr


def test_the_image_runs_as_another_user_than_root_from_the_locks():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert "USER headrace" in lines[max(n for n, line in enumerate(lines) if line.startswith("FROM ")) :]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line and line != "COPY . .":
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists()
                assert any(name == source or name.startswith(f"{source}/") for name in allowed), f"{source} is ignored"
