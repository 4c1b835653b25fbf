"""Benchmark results as tables on a terminal: every line's ratio to the group's baselines, all measured in one run."""

from __future__ import annotations

from results import Groups, Line, copy_bytes_per_second
from rich.table import Table


def group_table(title: str, lines: list[Line], *, beside: Groups | None = None) -> Table:
    """One line per implementation; `baseline / this` for every line that is marked as a baseline.

    `beside`: the groups measured in this run; where they hold a copy, adds bandwidth and its share of the copy's.
    """
    measured = [line for line in lines if "error" not in line]
    baselines = [line for line in measured if line.get("baseline")]
    columns = {
        "median ms": lambda line: f"{line['median_ms']:.4g}",
        "best ms": lambda line: f"{line['best_ms']:.4g}",
    }
    if any("warm_median_ms" in line for line in measured):
        columns["warm median ms"] = lambda line: f"{line['warm_median_ms']:.4g}"
    copy_bandwidth = copy_bytes_per_second(beside or {})
    if copy_bandwidth:
        columns["GB/s"] = lambda line: f"{bytes_per_second(line) / 1e9:.4g}"
        columns["of copy"] = lambda line: f"{bytes_per_second(line) / copy_bandwidth:.0%}"
    if any(line.get("flops") for line in measured):
        columns["TFLOP/s"] = lambda line: f"{line['flops'] / line['median_ms'] / 1e9:.4g}"
    for baseline in baselines:
        columns[f"{baseline['path']} / this"] = lambda line, baseline=baseline: f"{ratio(baseline, line):.1f}x"
    if any("peak_bytes" in line for line in measured):
        columns["memory MiB"] = lambda line: f"{line['peak_bytes'] / 2**20:.4g}"
    if any("memory_share" in line for line in measured):
        columns["memory"] = lambda line: f"{line['memory_share']:.2%}" if "memory_share" in line else ""

    table = Table(title=title, title_justify="left")
    table.add_column("path")
    for header in columns:
        table.add_column(header, justify="right")
    for line in measured:
        table.add_row(line["path"], *(cell(line) for cell in columns.values()))
    failed = [f"{line['path']}: {line['error']}" for line in lines if "error" in line]
    if any("memory_share" in line for line in measured):
        failed.append("memory: peak beyond inputs and gradient, as a share of the student logits' size")
    table.caption = "\n".join(failed) or None
    return table


def ratio(baseline: Line, line: Line) -> float:
    """How many times as long the baseline takes."""
    return baseline["median_ms"] / line["median_ms"]


def bytes_per_second(line: Line) -> float:
    """The least traffic over the time taken."""
    return line["bytes"] / line["median_ms"] * 1e3
