"""Every page: its links lead somewhere, the files it names exist, its YAML can be read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))

Blocks = Callable[[str, str], list[str]]


def anchors(page: Path) -> set[str]:
    """Headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_link_leads_to_something_that_is_there(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_source_file_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|toml|yaml|json|service))`", text):
        if "/" not in name and name != "pyproject.toml":
            assert list((ROOT / "proxy").rglob(name)) or name == "turnout.yaml", name
        elif page.name == "configuration.md" or name.startswith(("path/", "etc/")):
            continue
        else:
            assert (ROOT / name).exists() or (ROOT / "proxy" / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_yaml_example_is_yaml(page: Path, blocks: Blocks) -> None:
    for block in blocks(page.read_text(encoding="utf-8"), "yaml"):
        assert yaml.safe_load(block) is not None


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_no_page_has_a_line_number_or_a_thing_left_to_do(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"\.py:\d+|\bTODO\b|\bFIXME\b|\bline \d+ of\b", text)


def test_every_decision_has_a_number_of_its_own_a_title_and_a_date() -> None:
    numbers = [int(page.name[:4]) for page in DECISIONS]
    assert len(set(numbers)) == len(numbers)
    for page in DECISIONS:
        title, blank, date = page.read_text(encoding="utf-8").splitlines()[:3]
        assert title.startswith("# "), page.name
        assert blank == "", page.name
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", date), page.name


def test_every_import_contract_that_the_architecture_tells_is_checked() -> None:
    told = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    contracts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for library in ("httptools", "yaml", "pydantic", "aiohttp", "uvloop", "click", "rich"):
        assert library in told.lower()
        assert f'"{library}"' in contracts


def test_the_picture_is_a_picture_with_a_title_and_a_background_of_its_own() -> None:
    picture = ET.parse(ROOT / "docs/overview.svg").getroot()
    namespace = "{http://www.w3.org/2000/svg}"
    assert picture.find(f"{namespace}title") is not None
    first = picture.find(f"{namespace}rect")
    assert first is not None
    assert first.get("fill") == "#f6f8fa"
