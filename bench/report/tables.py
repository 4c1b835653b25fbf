"""What was measured, as Markdown: a list of paragraphs for each kind of result, its table among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..results import Groups, Line, is_baseline, is_own
from .text import digits, markdown_table, memory_text, plain, time_text

Cell = Callable[[Line], str]
_MIB = 2**20
_PERCENT = {
    "DRAM": "dram_percent", "L2": "l2_percent", "issue": "issue_active_percent", "MUFU": "mufu_percent",
    "ALU": "alu_percent", "FMA": "fma_percent", "FP64": "fp64_percent", "warps": "warps_active_percent",
}  # fmt: skip
_DECODING = (
    "Decoding, {shape} shape, random weights, {dtype} ({sizes}): prompt {prompt_length}, {gen_length} positions in "
    "blocks of {block_length}. Tokens revealed by each forward: replayed, {tokens_per_forward:.2f} on average "
    "({schedule}). Tokens/s are at that average. topk:5: five at every forward, chosen and revealed by one operator, "
    "which the parts of a step show as the choice."
)
_TRAINING = (
    "Optimizer steps, random weights ({shape}), LoRA of rank {rank}: {states} states of {positions} positions a step, "
    "{micro_batch} at a time. A step is everything: states made, student and teacher forwards, loss, backward, AdamW. "
    "FLOPs are of the frozen matrix products; peak memory is beyond the weights.{timed}"
)
_COUNTERS = (
    "One run of each kernel, caches emptied, under Nsight Compute: {rows} rows of {vocabulary:,} unless a line says "
    'otherwise. DRAM and L2: of their peak. While a multiprocessor is active, "issue": cycles in which its schedulers '
    'issue; MUFU (conversions among them), ALU, FMA, FP64: of the peak of that pipe; "warps": of the most it holds. '
    '"threads": of 32 that take part in an instruction. "instructions": of a thread, for each logit. "blocks": the '
    'most on a multiprocessor by registers, by shared memory. "cluster": its blocks, and the most clusters at once. '
    '"waits": what warps wait for most, of their time.'
)


def short_table(groups: Groups) -> list[str]:
    """A row for each of tad_ext's lines of the main cases, with its baselines."""
    copy = copy_rate(groups)
    lines = [
        own | {"path": title + own["path"].removeprefix("tad_ext"), "beside": list(filter(is_baseline, lines))}
        for title, lines in groups.items()
        for own in filter(is_own, lines)
        if own.get("main", True)
    ]
    columns: dict[str, Cell] = {
        "tad_ext": lambda line: time_text(line["median_ms"]),
        "warm": lambda line: time_text(line.get("warm_median_ms")),
        "cold": lambda line: time_text(line.get("cold_median_ms")),
        "GB/s": _rate,
        "of the copy": lambda line: "" if "flops" in line else _share(line, copy),
        "memory": lambda line: memory_text(line["peak_bytes"]),
        "baselines (their time / ours)": lambda line: ", ".join(_beside(rival, line) for rival in line["beside"]),
    }
    return _table(lines, columns, wide_last=True)


def case_table(lines: list[Line], copy: float | None) -> list[str]:
    """A row for each path; "baseline / this" is how many times as long the baseline takes.

    `copy`: bytes per second of the copy that was measured beside it.
    """
    columns: dict[str, Cell] = {
        "median ms": _number("median_ms"),
        "best ms": _number("best_ms"),
        "warm ms": _number("warm_median_ms"),
        "cold ms": _number("cold_median_ms"),
        "GB/s": lambda line: digits(bytes_per_second(line) / 1e9),
        "of copy": lambda line: _share(line, copy),
        "TFLOP/s": _teraflops,
        **_ratios(lines),
        "MiB": _number("peak_bytes", _MIB),
    }
    return _table(lines, columns)


def decoding_tables(group: dict[str, Any], *, parts: bool = False) -> list[str]:
    """Whole decodes: what was decoded, and how fast; the parts of a step where asked for."""
    lines = group["lines"]
    timed = [line for line in lines if line.get("parts_ms")]
    published = next(filter(is_baseline, timed), None)

    def of_parts(cell: Cell) -> Cell:
        return lambda line: cell(line) if line["parts_ms"] else ""

    def neither(line: Line) -> float:
        return outside_layers_ms(line) - line["parts_ms"]["head"]

    def beside_published(line: Line) -> str:
        comparable = published is not None and line["batch"] == published["batch"]
        return f"{outside_layers_ms(published) / outside_layers_ms(line):.1f}x" if comparable else ""

    columns: dict[str, Cell] = {
        "forwards/s": _number("forwards_per_second"),
        "tokens/s": _number("tokens_per_second"),
        "median step ms": _number("median_ms"),
        "layers ms": of_parts(lambda line: digits(line["parts_ms"]["layers"])),
        "head ms": of_parts(lambda line: digits(line["parts_ms"]["head"])),
        "neither ms": of_parts(lambda line: digits(neither(line))),
        "neither": of_parts(lambda line: f"{neither(line) / sum(line['parts_ms'].values()):.1%}"),
        "outside layers, published / this": of_parts(beside_published),
        "cache MiB": lambda line: digits(line["cache_bytes"] / _MIB or None),
        "peak MiB": _number("peak_bytes", _MIB),
    }
    texts = [_DECODING.format(**group | {"sizes": _sizes(group["sizes"])}), *_table(lines, columns)]
    if parts and timed:
        names = list(timed[0]["parts_ms"])
        rows = [[line["path"], *(digits(line["parts_ms"][name]) for name in names)] for line in timed]
        texts += ["Mean milliseconds of a step by part:", markdown_table(["", *names], rows)]
    return texts


def training_table(result: dict[str, Any]) -> list[str]:
    """Optimizer steps: what a step was, and how long it took under either loss."""
    lines = result["training"]
    columns: dict[str, Cell] = {
        "ms per step": _number("median_ms"),
        "best ms": _number("best_ms"),
        "states/s": _number("states_per_second"),
        "TFLOP/s": _teraflops,
        **_ratios(lines),
        "weights MiB": _number("weights_bytes", _MIB),
        "peak MiB": _number("peak_bytes", _MIB),
    }
    timed = next((f" Medians of {line['steps']} steps." for line in measured(lines)), "")
    return [_TRAINING.format(**result | {"shape": _sizes(result["shape"]), "timed": timed}), *_table(lines, columns)]


def counters_table(result: dict[str, Any]) -> list[str]:
    """What the hardware counted of each kernel."""
    lines = [
        line if "error" in line else line | {"path": f"{line['path']}: {line['kernel'].split('<')[0]}"}
        for line in result["counters"]
    ]
    columns: dict[str, Cell] = {
        "us": _number("duration_us"),
        **{words: lambda line, name=name: _percent(line[name]) for words, name in _PERCENT.items()},
        "threads": _number("threads_per_instruction"),
        "instructions": _number("instructions_per_logit"),
        "registers": _number("registers"),
        "shared KiB": lambda line: digits((line["dynamic_shared_bytes"] or 0) / 2**10 or None),
        "blocks": lambda line: ", ".join(digits(line[f"blocks_by_{of}"]) for of in ("registers", "shared_memory")),
        "cluster": lambda line: (
            f"{line['cluster_size']}, {digits(line['clusters_at_once'])}" if line["cluster_size"] else ""
        ),
        "waits": lambda line: ", ".join(
            f"{reason.replace('_', ' ')} {_percent(share)}" for reason, share in line["stalls_percent"].items()
        ),
    }
    return [_COUNTERS.format(**result), *_table(lines, columns, wide_last=True)]


def measured(lines: list[Line]) -> list[Line]:
    """Those that did not fail."""
    return [line for line in lines if "error" not in line]


def bytes_per_second(line: Line) -> float:
    """The least traffic over the time taken."""
    return line["bytes"] / line["median_ms"] * 1e3


def copy_rate(groups: Groups) -> float | None:
    """Bytes per second of the copy that was measured beside the groups."""
    copies = (line for lines in groups.values() for line in measured(lines) if line["path"] == "copy")
    return next(map(bytes_per_second, copies), None)


def outside_layers_ms(line: Line) -> float:
    """Of a mean step: the head, and all that is neither layers nor head."""
    return sum(line["parts_ms"].values()) - line["parts_ms"]["layers"]


def _table(lines: list[Line], columns: Mapping[str, Cell], *, wide_last: bool = False) -> list[str]:
    """A row for each line under its path, without empty columns; and a sentence for each that could not be measured."""
    good = measured(lines)
    cells = {name: [cell(line) for line in good] for name, cell in columns.items()}
    cells = {"": [line["path"] for line in good], **{name: column for name, column in cells.items() if any(column)}}
    tables = [markdown_table(list(cells), zip(*cells.values()), wide_last=wide_last)] if good else []
    return [*tables, *(f"{line['path']} failed: {plain(line['error'])}" for line in lines if "error" in line)]


def _number(name: str, unit: float = 1) -> Cell:
    return lambda line: digits(None if line.get(name) is None else line[name] / unit)


def _ratios(lines: list[Line]) -> dict[str, Cell]:
    """A column for each baseline: how many times as long it takes."""
    return {
        f"{to['path']} / this": lambda line, to=to: f"{to['median_ms'] / line['median_ms']:.2f}x"
        for to in filter(is_baseline, measured(lines))
    }


def _beside(baseline: Line, own: Line) -> str:
    if "error" in baseline:
        return f"{baseline['path']} failed"
    factor = baseline["median_ms"] / own["median_ms"]
    return f"{baseline['path']} {time_text(baseline['median_ms'], 1)} (**{factor:.{1 if factor >= 2 else 2}f}x**)"


def _rate(line: Line) -> str:
    """Bytes per second; of matrix products, operations per second."""
    if "flops" in line:
        rate = line["flops"] / line["median_ms"] * 1e3
        return f"{rate / 1e12:,.0f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:,.0f} GFLOP/s"
    rate = bytes_per_second(line)
    return f"{rate / 1e9:,.{0 if rate >= 1e11 else 1}f}"


def _share(line: Line, copy: float | None) -> str:
    return f"{bytes_per_second(line) / copy:.0%}" if copy else ""


def _teraflops(line: Line) -> str:
    return digits(line["flops"] / line["median_ms"] / 1e9) if "flops" in line else ""


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}%"


def _sizes(shape: Mapping[str, int]) -> str:
    """A model's sizes by name."""
    return ", ".join(f"{name} {value:,}" for name, value in shape.items())
