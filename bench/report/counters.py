"""What the hardware counted, as Markdown."""

from __future__ import annotations

from typing import Any

from ..results import Line, measured
from .operators import failures
from .text import digits, markdown_table

_PERCENT = {
    "DRAM": "dram_percent", "L2": "l2_percent", "issue": "issue_active_percent", "MUFU": "mufu_percent",
    "ALU": "alu_percent", "FMA": "fma_percent", "FP64": "fp64_percent", "warps": "warps_active_percent",
}  # fmt: skip
_WORDS = (
    "One run of each kernel, caches emptied, under Nsight Compute: {rows} rows of {vocabulary:,} unless a line says "
    'otherwise. DRAM and L2: of their peak. While a multiprocessor is active, "issue": cycles in which its schedulers '
    'issue; MUFU (conversions among them), ALU, FMA, FP64: of the peak of that pipe; "warps": of the most it holds. '
    '"threads": of 32 that take part in an instruction. "instructions": of a thread, for each logit. "blocks": the '
    'most on a multiprocessor by registers, by shared memory. "cluster": its blocks, and the most clusters at once. '
    '"waits": what warps wait for most, of their time.'
)


def counters_table(result: dict[str, Any]) -> str:
    """A row for each kernel."""
    header = ["", "us", *_PERCENT, "threads", "instructions", "registers", "shared KiB", "blocks", "cluster", "waits"]
    rows = [_cells(line) for line in measured(result["counters"])]
    tables = [markdown_table(header, rows, wide_last=True)] if rows else []
    return "\n\n".join([_WORDS.format(**result), *tables, *failures(result["counters"])])


def _cells(line: Line) -> list[str]:
    return [
        f"{line['path']}: {line['kernel'].split('<')[0]}",
        digits(line["duration_us"]),
        *(_percent(line[metric]) for metric in _PERCENT.values()),
        digits(line["threads_per_instruction"]),
        digits(line["instructions_per_logit"]),
        digits(line["registers"]),
        digits(line["dynamic_shared_bytes"] / 2**10 if line["dynamic_shared_bytes"] else None),
        f"{digits(line['blocks_by_registers'])}, {digits(line['blocks_by_shared_memory'])}",
        f"{line['cluster_size']}, {digits(line['clusters_at_once'])}" if line["cluster_size"] else "",
        ", ".join(f"{reason.replace('_', ' ')} {share:.0f}%" for reason, share in line["stalls_percent"].items()),
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}%"
