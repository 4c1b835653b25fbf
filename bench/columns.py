"""What a table says about each line of a case, on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from results import Line


def line_columns(lines: list[Line], copy_rate: float | None) -> dict[str, Callable[[Line], str]]:
    """Header -> cell of a line that was measured; "baseline / this" is how many times as long the baseline takes.

    Only columns that any line has something for. `copy_rate`: bytes per second of a copy in the same run.
    """
    columns: dict[str, Callable[[Line], str]] = {
        "median ms": lambda line: digits(line["median_ms"]),
        "best ms": lambda line: digits(line["best_ms"]),
        "warm ms": lambda line: digits(line.get("warm_median_ms")),
        "cold ms": lambda line: digits(line.get("cold_median_ms")),
        "GB/s": lambda line: digits(bytes_per_second(line) / 1e9) if line.get("bytes") else "",
        "of copy": lambda line: f"{bytes_per_second(line) / copy_rate:.0%}" if line.get("bytes") and copy_rate else "",
        "TFLOP/s": lambda line: digits(line["flops"] / line["median_ms"] / 1e9) if line.get("flops") else "",
    }
    for line in lines:
        if line.get("baseline") and "error" not in line:
            columns[f"{line['path']} / this"] = partial(_ratio_text, line)
    columns["MiB"] = lambda line: digits(line["peak_bytes"] / 2**20) if "peak_bytes" in line else ""
    measured = [line for line in lines if "error" not in line]
    return {header: cell for header, cell in columns.items() if any(cell(line) for line in measured)}


def ratio(baseline: Line, line: Line) -> float:
    """How many times as long the baseline takes."""
    return baseline["median_ms"] / line["median_ms"]


def bytes_per_second(line: Line) -> float:
    """The least traffic over the time taken."""
    return line["bytes"] / line["median_ms"] * 1e3


def digits(value: float | None) -> str:
    """Four significant ones, and never an exponent: a small copy may move thousands of GB/s."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _ratio_text(baseline: Line, line: Line) -> str:
    return f"{ratio(baseline, line):.2f}x"
