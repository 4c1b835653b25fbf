"""Markdown tables and numbers in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, wide_last: bool = False) -> str:
    """The first column is text, the others are numbers; with `wide_last` the last one is text, too."""
    aligned = ["---", *("---:" for _ in header[1:])]
    if wide_last:
        aligned[-1] = "---"
    return "\n".join(
        "|" + "".join(f" {plain(cell)} |" if cell else " |" for cell in cells) for cells in (header, aligned, *rows)
    )


def plain(text: str, most: int = 200) -> str:
    """On one line, and harmless inside a table."""
    return " ".join(text.split()).replace("|", "\\|")[:most]


def digits(value: float | None) -> str:
    """Four significant ones, and never an exponent: a small copy may move thousands of GB/s."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def time_text(milliseconds: float | None, places: int = 2) -> str:
    """Milliseconds, or microseconds where there is less than one."""
    if milliseconds is None:
        return ""
    return f"{milliseconds:.{places}f} ms" if milliseconds >= 1 else f"{milliseconds * 1e3:.1f} us"


def memory_text(count: int | None) -> str:
    """Mebibytes, or kibibytes where there is less than a tenth."""
    if count is None:
        return ""
    return f"{count / 2**20:,.1f} MiB" if count >= 0.1 * 2**20 else f"{count / 2**10:,.1f} KiB"
