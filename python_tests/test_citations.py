"""Every paper that the package names stands in docs/citations.md, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NUMBER = re.compile(r"(?:arXiv[: ]\s*|arxiv\.org/abs/)(\d{4}\.\d{4,5})")


def papers(*paths: Path) -> set[str]:
    return {number for path in paths for number in NUMBER.findall(path.read_text(encoding="utf-8"))}


def test_papers_that_are_named_are_cited():
    kinds = (".py", ".h", ".cuh", ".cpp", ".cu")
    sources = [path for folder in ("tad_ext", "csrc") for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    pages = [ROOT / "README.md", *(page for page in (ROOT / "docs").glob("*.md") if page.name != "citations.md")]
    cited = papers(ROOT / "docs" / "citations.md")
    named = papers(*sources, *pages)
    assert "2605.09536" in named
    assert named == cited
