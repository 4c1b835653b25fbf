"""Operators beside their baselines: one table of tad_ext's main lines, or a table of all lines for each case."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..results import Groups, Line, bytes_per_second, copy_rate, is_baseline, is_own, measured
from .text import digits, markdown_table, memory_text, plain, time_text, without_empty_columns

_SHORT = ["", "tad_ext", "warm", "cold", "GB/s", "of the copy", "memory", "baselines (their time / ours)"]


def short_table(groups: Groups) -> str:
    """A row for each of tad_ext's lines of the main cases; empty if there is none."""
    header, rows = without_empty_columns(_SHORT, list(_short_rows(groups)))
    return markdown_table(header, rows, wide_last=True) if rows else ""


def case_table(lines: list[Line], copy: float | None) -> str:
    """A row for each path; "baseline / this" is how many times as long the baseline takes.

    `copy`: bytes per second of the copy that was measured beside it.
    """
    cells: dict[str, Callable[[Line], str]] = {
        "": lambda line: line["path"],
        "median ms": lambda line: digits(line["median_ms"]),
        "best ms": lambda line: digits(line["best_ms"]),
        "warm ms": lambda line: digits(line.get("warm_median_ms")),
        "cold ms": lambda line: digits(line.get("cold_median_ms")),
        "GB/s": lambda line: digits(bytes_per_second(line) / 1e9),
        "of copy": lambda line: f"{bytes_per_second(line) / copy:.0%}" if copy else "",
        "TFLOP/s": lambda line: digits(line["flops"] / line["median_ms"] / 1e9) if "flops" in line else "",
    }
    for baseline in measured(lines):
        if is_baseline(baseline):
            cells[f"{baseline['path']} / this"] = lambda line, to=baseline: f"{_ratio(to, line):.2f}x"
    cells["MiB"] = lambda line: digits(line["peak_bytes"] / 2**20)
    rows = [[cell(line) for cell in cells.values()] for line in measured(lines)]
    tables = [markdown_table(*without_empty_columns(list(cells), rows))] if rows else []
    return "\n\n".join([*tables, *failures(lines)])


def failures(lines: list[Line]) -> list[str]:
    """A sentence for each line that could not be measured."""
    return [f"{line['path']} failed: {plain(line['error'])}" for line in lines if "error" in line]


def _short_rows(groups: Groups) -> Iterator[list[str]]:
    copy = copy_rate(groups)
    for title, lines in groups.items():
        for own in filter(is_own, lines):
            name = title + own["path"].removeprefix("tad_ext")
            if "error" in own:
                yield [name, f"not measured: {own['error']}", *[""] * 6]
            elif own["main"]:
                yield [
                    name,
                    time_text(own["median_ms"]),
                    time_text(own.get("warm_median_ms")),
                    time_text(own.get("cold_median_ms")),
                    *_rate(own, copy),
                    memory_text(own["peak_bytes"]),
                    ", ".join(_beside(line, own) for line in lines if is_baseline(line)),
                ]


def _rate(line: Line, copy: float | None) -> list[str]:
    """Bytes per second and their share of the copy's; of matrix products, operations per second."""
    if "flops" in line:
        rate = line["flops"] / line["median_ms"] * 1e3
        return [f"{rate / 1e12:,.0f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:,.0f} GFLOP/s", ""]
    rate = bytes_per_second(line)
    return [f"{rate / 1e9:,.{0 if rate >= 1e11 else 1}f}", f"{rate / copy:.0%}" if copy else ""]


def _beside(baseline: Line, own: Line) -> str:
    if "error" in baseline:
        return f"{baseline['path']} failed"
    factor = _ratio(baseline, own)
    return f"{baseline['path']} {time_text(baseline['median_ms'], 1)} (**{factor:.{1 if factor >= 2 else 2}f}x**)"


def _ratio(baseline: Line, line: Line) -> float:
    """How many times as long the baseline takes."""
    return baseline["median_ms"] / line["median_ms"]
