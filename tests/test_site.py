"""The docs as a site: every page is in it and says what it is for, no link is broken, and nothing is fetched for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(page.name for page in DOCS.glob("*.md"))
FETCHED = {"src", "srcset", "poster", "data"}
"""What a browser fetches, whatever element has it; a link it fetches only of a ``<link>``."""
OUTSIDE = re.compile(r"(?:https?:)?//")


def in_navigation(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for inside in entry.values():
                yield from in_navigation(inside if isinstance(inside, list) else [inside])


def test_every_page_is_in_the_navigation_once_and_listed_on_the_first() -> None:
    project = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
    assert sorted(in_navigation(project["nav"])) == PAGES
    listed = re.findall(r"^\|.*\]\((.+)\) \|$", (DOCS / "index.md").read_text(), re.MULTILINE)
    assert sorted([*listed, "index.md"]) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_every_page_opens_with_what_it_is_for(page: str) -> None:
    title, *rest = (DOCS / page).read_text().split("\n\n")
    opening = next(part for part in rest if not part.startswith("<!--"))
    assert re.fullmatch(r"# .+", title)
    assert re.match(r"[A-Z`\[]", opening), opening
    assert re.search(r"[.:]$", opening), opening
    assert not re.match(r"```|    |\[.*\]:", opening), opening


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    return tmp_path


class Resources(HTMLParser):
    """What a browser fetches for a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        relations = dict(attrs).get("rel") or ""
        self.found += [
            value
            for name, value in attrs
            if value and (name in FETCHED or (tag == "link" and name == "href" and relations != "canonical"))
        ]


@pytest.mark.slow
def test_the_site_is_built_with_the_pages_picture_and_fetches_nothing_from_elsewhere(sources: Path) -> None:
    built = build(sources)
    assert built.returncode == 0, built.stdout + built.stderr
    site = sources / "site"
    resources = {page.name: Resources(page.read_text()).found for page in site.glob("*.html")}
    assert {f"{Path(page).stem}.html" for page in PAGES} <= resources.keys()
    assert "page.png" in resources["index.html"]
    for page, found in resources.items():
        for resource in found:
            assert not OUTSIDE.match(resource), f"{page} fetches {resource}"
            if resource.startswith("data:") or page == "404.html":
                continue
            assert (site / resource.partition("?")[0]).exists(), f"{page} wants {resource}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:@import\s*|url\()\s*[\"']?(?:https?:)?//", sheet.read_text()), sheet.name


@pytest.mark.slow
@pytest.mark.parametrize("target", ["nowhere.md", "concepts.md#nowhere"])
def test_a_broken_link_fails_the_build(sources: Path, target: str) -> None:
    with (sources / "docs" / "faults.md").open("a") as page:
        page.write(f"\n[there]({target})\n")
    built = build(sources)
    assert built.returncode != 0
    assert f"faults.md:{len((sources / 'docs' / 'faults.md').read_text().splitlines())}" in built.stdout + built.stderr
