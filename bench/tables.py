"""Benchmark results as tables on a terminal: every line's ratio to the group's baselines, all measured in one run."""

from __future__ import annotations

from columns import line_columns
from results import Groups, Line, copy_bytes_per_second
from rich.table import Table


def group_table(title: str, lines: list[Line], *, beside: Groups) -> Table:
    """One line per implementation. `beside`: the groups measured in this run, a copy among them."""
    columns = line_columns(lines, copy_bytes_per_second(beside))
    failed = [f"{line['path']}: {line['error']}" for line in lines if "error" in line]
    table = Table(title=title, title_justify="left", caption="\n".join(failed) or None)
    table.add_column("path", no_wrap=True)
    for header in columns:
        table.add_column(header, justify="right")
    for line in lines:
        if "error" not in line:
            table.add_row(line["path"], *(cell(line) for cell in columns.values()))
    return table
