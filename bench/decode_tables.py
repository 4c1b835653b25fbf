"""What bench/decode measured, as tables: on a terminal and in Markdown."""

from __future__ import annotations

from typing import Any

from columns import digits
from markdown_table import markdown_table, plain
from results import Line
from rich.table import Table
from step_clock import HEAD, LAYERS, PARTS

Group = dict[str, Any]
_PARTS_NOTE = "Mean milliseconds of a step by part"


def title(group: Group) -> str:
    """The model, and what it decodes."""
    sizes = ", ".join(f"{name} {value:,}" for name, value in group.get("sizes", {}).items())
    return (
        f"Decoding, {group.get('shape')} shape, random weights, {group.get('dtype')} ({sizes}): prompt "
        f"{group.get('prompt_length')}, {group.get('gen_length')} positions in blocks of {group.get('block_length')}"
    )


def note(group: Group) -> str:
    """Where the numbers of revealed tokens are from."""
    return (
        f"Tokens revealed by each forward: replayed, {group.get('tokens_per_forward', 0):.2f} on average "
        f"({group.get('schedule')}). Tokens/s are at that average. topk:5: five at every forward, chosen and revealed "
        "by one operator, which the parts of a step show as the choice."
    )


def rows(lines: list[Line]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of what was measured."""
    measured = [line for line in lines if "error" not in line]
    baseline = next((line for line in measured if line.get("baseline")), None)
    header = [
        "", "forwards/s", "tokens/s", "median step ms", "layers ms", "head ms", "neither ms", "neither",
        "outside layers, published / this", "cache MiB", "peak MiB",
    ]  # fmt: skip
    return header, [_cells(line, baseline) for line in measured]


def part_rows(lines: list[Line]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the parts of a step, where they are known."""
    measured = [line for line in lines if line.get("parts_ms")]
    return ["", *PARTS], [[line["path"], *(digits(line["parts_ms"][part]) for part in PARTS)] for line in measured]


def failures(lines: list[Line]) -> list[str]:
    """Cases that could not be measured."""
    return [f"{line['path']} failed: {plain(line['error'])}" for line in lines if "error" in line]


def terminal_tables(group: Group) -> list[Table]:
    """Two: what was measured, and the parts of a step."""
    lines = group["lines"]
    captions = ["\n".join([note(group), *failures(lines)]), ""]
    tables = []
    for name, (header, cells), caption in zip((title(group), _PARTS_NOTE), (rows(lines), part_rows(lines)), captions):
        table = Table(title=name, title_justify="left", caption=caption, caption_justify="left")
        for index, column in enumerate(header):
            table.add_column(column, justify="right" if index else "left", no_wrap=not index)
        for row in cells:
            table.add_row(*row)
        tables.append(table)
    return tables


def markdown(group: Group, *, parts: bool = False) -> str:
    """The same for a page, the parts of a step where asked for."""
    lines = group["lines"]
    texts = [f"{title(group)}. {note(group)}", markdown_table(*rows(lines)), *failures(lines)]
    if parts:
        texts += [f"{_PARTS_NOTE}:", markdown_table(*part_rows(lines))]
    return "\n\n".join(texts)


def outside_layers_ms(line: Line) -> float:
    """Of a mean step: the head, and all that is neither layers nor head."""
    return sum(line["parts_ms"].values()) - line["parts_ms"][LAYERS]


def _part_cells(line: Line, baseline: Line | None) -> list[str]:
    parts = line["parts_ms"]
    neither = outside_layers_ms(line) - parts[HEAD]
    ratio = outside_layers_ms(baseline) / outside_layers_ms(line) if baseline else 0.0
    return [
        *map(digits, (parts[LAYERS], parts[HEAD], neither)),
        f"{neither / sum(parts.values()):.1%}",
        f"{ratio:.1f}x" if baseline and line.get("batch") == baseline.get("batch") else "",
    ]


def _mebibytes(count: int | None) -> str:
    return "" if count is None else digits(count / 2**20)


def _cells(line: Line, baseline: Line | None) -> list[str]:
    return [
        line["path"],
        *map(digits, (line["forwards_per_second"], line["tokens_per_second"], line["median_ms"])),
        *(_part_cells(line, baseline) if line["parts_ms"] else [""] * 5),
        _mebibytes(line.get("cache_bytes") or None),
        _mebibytes(line.get("peak_bytes")),
    ]
