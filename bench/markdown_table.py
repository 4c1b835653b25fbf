"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, wide_last: bool = False) -> str:
    """The first column is text, the others are numbers; with `wide_last` the last one is text, too."""
    aligned = ["---", *("---:" for _ in header[1:])]
    if wide_last:
        aligned[-1] = "---"
    return "\n".join(_row(cells) for cells in (header, aligned, *rows))


def plain(text: str, most: int = 200) -> str:
    """On one line, and harmless inside a table."""
    return " ".join(text.split()).replace("|", "\\|")[:most]


def _row(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {plain(cell)} |" if cell else " |" for cell in cells)
