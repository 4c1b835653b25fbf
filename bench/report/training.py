"""Optimizer steps as Markdown."""

from __future__ import annotations

from typing import Any

from ..results import Line, is_baseline, measured
from .operators import failures
from .text import digits, markdown_table, shape_text


def training_table(result: dict[str, Any]) -> str:
    """What a step was, and how long it took under either loss."""
    lines = measured(result["training"])
    baselines = list(filter(is_baseline, lines))
    header = ["", "ms per step", "best ms", "states/s", "TFLOP/s", *(f"{line['path']} / this" for line in baselines)]
    rows = [_cells(line, baselines) for line in lines]
    tables = [markdown_table([*header, "weights MiB", "peak MiB"], rows)] if rows else []
    return "\n\n".join([_words(result, lines), *tables, *failures(result["training"])])


def _words(result: dict[str, Any], lines: list[Line]) -> str:
    timed = f" Medians of {lines[0]['steps']} steps." if lines else ""
    return (
        f"Optimizer steps, random weights ({shape_text(result['shape'])}), LoRA of rank {result['rank']}: "
        f"{result['states']} states of {result['positions']} positions a step, {result['micro_batch']} at a time. A "
        "step is everything: states made, student and teacher forwards, loss, backward, AdamW. FLOPs are of the frozen "
        f"matrix products; peak memory is beyond the weights.{timed}"
    )


def _cells(line: Line, baselines: list[Line]) -> list[str]:
    return [
        line["path"],
        digits(line["median_ms"]),
        digits(line["best_ms"]),
        digits(line["states_per_second"]),
        digits(line["flops"] / line["median_ms"] / 1e9),
        *(f"{baseline['median_ms'] / line['median_ms']:.2f}x" for baseline in baselines),
        digits(line["weights_bytes"] / 2**20),
        digits(None if line["peak_bytes"] is None else line["peak_bytes"] / 2**20),
    ]
