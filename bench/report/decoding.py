"""Whole decodes as Markdown."""

from __future__ import annotations

from typing import Any

from ..results import Line, is_baseline, measured
from .operators import failures
from .text import digits, markdown_table, shape_text

_HEADER = [
    "", "forwards/s", "tokens/s", "median step ms", "layers ms", "head ms", "neither ms", "neither",
    "outside layers, published / this", "cache MiB", "peak MiB",
]  # fmt: skip


def decoding_tables(group: dict[str, Any], *, parts: bool = False) -> str:
    """What was decoded, and how fast; the parts of a step where asked for."""
    lines = measured(group["lines"])
    published = next(filter(is_baseline, lines), None)
    texts = [_words(group), markdown_table(_HEADER, [_cells(line, published) for line in lines])]
    texts += failures(group["lines"])
    timed = [line for line in lines if line["parts_ms"]]
    if parts and timed:
        names = list(timed[0]["parts_ms"])
        rows = [[line["path"], *(digits(line["parts_ms"][name]) for name in names)] for line in timed]
        texts += ["Mean milliseconds of a step by part:", markdown_table(["", *names], rows)]
    return "\n\n".join(texts)


def outside_layers_ms(line: Line) -> float:
    """Of a mean step: the head, and all that is neither layers nor head."""
    return sum(line["parts_ms"].values()) - line["parts_ms"]["layers"]


def _words(group: dict[str, Any]) -> str:
    return (
        f"Decoding, {group['shape']} shape, random weights, {group['dtype']} ({shape_text(group['sizes'])}): prompt "
        f"{group['prompt_length']}, {group['gen_length']} positions in blocks of {group['block_length']}. Tokens "
        f"revealed by each forward: replayed, {group['tokens_per_forward']:.2f} on average ({group['schedule']}). "
        "Tokens/s are at that average. topk:5: five at every forward, chosen and revealed by one operator, which the "
        "parts of a step show as the choice."
    )


def _cells(line: Line, published: Line | None) -> list[str]:
    return [
        line["path"],
        *map(digits, (line["forwards_per_second"], line["tokens_per_second"], line["median_ms"])),
        *(_part_cells(line, published) if line["parts_ms"] else [""] * 5),
        digits(line["cache_bytes"] / 2**20 or None),
        digits(line["peak_bytes"] / 2**20),
    ]


def _part_cells(line: Line, published: Line | None) -> list[str]:
    parts = line["parts_ms"]
    neither = outside_layers_ms(line) - parts["head"]
    comparable = published is not None and line["batch"] == published["batch"]
    return [
        *map(digits, (parts["layers"], parts["head"], neither)),
        f"{neither / sum(parts.values()):.1%}",
        f"{outside_layers_ms(published) / outside_layers_ms(line):.1f}x" if comparable else "",
    ]
