"""The pages lead to each other and to code that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
# What a path in the text may be relative to.
BASES = (ROOT, ROOT / "bike_pipeline")
ROOMS = "|".join(
    path.name for base in BASES for path in sorted(base.iterdir()) if path.is_dir() and path.name[0] != "."
)
PATH = re.compile(rf"`((?:{ROOMS})/[\w./-]*|\w+\.py)`")


def test_the_map_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w./-]+\.md)\)", (DOCS / "README.md").read_text(encoding="utf-8")))
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    assert {name for name in linked if "/" not in name} == pages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:|#|mailto:)([^)\s#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_every_decision_has_a_number_a_date_and_a_status(page: Path) -> None:
    title, _, status, *_ = page.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(rf"# {page.name[:4]}: .+ \(\d{{4}}-\d\d\)", title)
    assert re.match(r"Status: (Accepted|Amended by|Replaced by)\b", status)


@pytest.mark.parametrize("name", ["where-to-change.md", "file-formats.md"])
def test_the_code_that_a_page_names_is_there(name: str) -> None:
    named = set(PATH.findall((DOCS / name).read_text(encoding="utf-8")))
    assert len(named) >= 5
    assert sorted(path for path in named if not any((base / path).exists() for base in BASES)) == []
