"""Benchmark documents as a page of Markdown: every case a table, every path a line of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import decode_tables
from columns import line_columns
from markdown_table import markdown_table, plain
from report_tables import machine_paragraph
from results import Line, copy_bytes_per_second, decoding_of, groups_of

_HEAD = """# Benchmarks

Written by `bench/report --tables` from the files in bench/results/. A line's time is its median: on a CPU of rounds
with warm caches, with emptied ones beside it ("cold ms"); on a GPU with emptied caches, with warm ones beside it ("warm
ms"). GB/s are of the least traffic the work could have: every input read once, every output written once; "of copy" is
their share of what a copy moves in the same run. "x / this" is how many times as long x takes as the line. Memory (MiB)
is the peak beyond the inputs, results included.

Of decoding, "layers" is the model without its output head, and "neither" all but layers and head; each is a mean over
the forwards of a run. forwards/s and tokens/s are of whole runs, prompt included, but with CUDA graphs of the median
step, whose parts are not known then; a run with a cache decodes the whole canvas, one without decodes its beginning.
Memory is the peak beyond the weights, cache included."""


def details(documents: Mapping[str, dict[str, Any]]) -> str:
    """All machines, by file name."""
    return (
        "\n\n".join([_HEAD, *(part for name in sorted(documents) for part in _machine(name, documents[name]))]) + "\n"
    )


def _machine(name: str, document: dict[str, Any]) -> Iterator[str]:
    yield f"## {name.removesuffix('.json')}"
    yield machine_paragraph(document)
    for groups in groups_of(document):
        copy_rate = copy_bytes_per_second(groups)
        for title, lines in groups.items():
            yield f"### {plain(title)}\n\n{_case(lines, copy_rate)}"
    for group in decoding_of(document):
        yield f"### Decoding, {plain(str(group.get('shape')))} shape\n\n{decode_tables.markdown(group, parts=True)}"


def _case(lines: list[Line], copy_rate: float | None) -> str:
    columns = line_columns(lines, copy_rate)
    measured = [[line["path"], *(cell(line) for cell in columns.values())] for line in lines if "error" not in line]
    failed = [f"{line['path']} failed: {plain(line['error'])}" for line in lines if "error" in line]
    tables = [markdown_table(["", *columns], measured)] if measured else []
    return "\n\n".join([*tables, *failed])
