"""What was measured, as Markdown: a list of paragraphs for each kind of result, its table among them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..results import Groups, Line, is_baseline, is_own

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
    "Optimizer steps, random weights{dtype} ({shape}), LoRA of rank {rank}: {states} states of {positions} positions a "
    "step, {micro_batch} at a time. A step is everything: states made, student and teacher forwards, loss, backward, "
    "AdamW. FLOPs are of the frozen matrix products; peak memory is beyond the weights.{timed}"
)
_TRAINING_PARTS = (
    "Mean milliseconds of a step by part, and their share of it. Teacher and student are their layers. tad_ext makes "
    "head, loss and the gradient of both at once; in the published step the head is that of teacher and student, and "
    "its gradient is part of backward. Matrix products alone: those of a step, by `torch.mm`, without attention's."
)
_TRAINING_PART_NAMES = (
    "states", "teacher", "student", "layers", "head", "gathers", "loss", "head + loss", "backward", "AdamW", "other",
)  # fmt: skip
_COLLECTION = (
    "Collecting trajectories from {subject}: prompt {prompt_length}, {gen_length} positions in blocks of "
    "{block_length}, one token per step unless a line says otherwise. {seconds}.{timed} Without a cache one block is "
    "timed, of the published loop {published_forwards} forwards; a trajectory is as many as it has. "
    '"published / this": at the same temperature; the published softmax is in float64. Beside the exact way on the '
    'same {compared} prompts: "choices that differ" in position or token, everything behind the first of them being '
    'decoded from another canvas, and "tokens that differ" in the end. Choices of random weights lie close together: '
    "how many of them differ says little."
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
    columns: dict[str, Cell] = {
        "tad_ext": lambda line: time_text(line["median_ms"]),
        "warm": lambda line: time_text(line.get("warm_median_ms")),
        "cold": lambda line: time_text(line.get("cold_median_ms")),
        "GB/s": _rate,
        "of the copy": lambda line: "" if "flops" in line else _share(line, copy),
        "memory": lambda line: _memory(line["peak_bytes"]),
        "baselines (their time / ours)": lambda line: ", ".join(_beside(other, line) for other in line["baselines"]),
    }
    return _table(main_lines(groups), columns, wide_last=True)


def case_table(lines: list[Line], copy: float | None) -> list[str]:
    """A row for each path. `copy`: bytes per second of the copy that was measured beside it."""
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
    lines = [line | _outside_layers(line) if line.get("parts_ms") else line for line in group["lines"]]
    timed = [line for line in lines if "outside" in line]
    published = next(filter(is_baseline, timed), {"batch": None})
    columns: dict[str, Cell] = {
        "forwards/s": _number("forwards_per_second"),
        "tokens/s": _number("tokens_per_second"),
        "median step ms": _number("median_ms"),
        "layers ms": lambda line: digits(line["parts_ms"].get("layers")),
        "head ms": lambda line: digits(line["parts_ms"].get("head")),
        "neither ms": _number("neither"),
        "neither": lambda line: f"{line['neither'] / sum(line['parts_ms'].values()):.1%}" if "neither" in line else "",
        "outside layers, published / this": lambda line: (
            f"{published['outside'] / line['outside']:.1f}x"
            if "outside" in line and line["batch"] == published["batch"]
            else ""
        ),
        "cache MiB": lambda line: digits(line["cache_bytes"] / _MIB or None),
        "peak MiB": _number("peak_bytes", _MIB),
    }
    texts = [_DECODING.format(**group | {"sizes": _sizes(group["sizes"])}), *_table(lines, columns)]
    if parts and timed:
        cells = {part: lambda line, part=part: digits(line["parts_ms"][part]) for part in timed[0]["parts_ms"]}
        texts += ["Mean milliseconds of a step by part:", *_table(timed, cells)]
    return texts


def _outside_layers(line: Line) -> Line:
    """Milliseconds of a mean step outside its layers, and of what is neither layers nor head."""
    outside = sum(line["parts_ms"].values()) - line["parts_ms"]["layers"]
    return {"outside": outside, "neither": outside - line["parts_ms"]["head"]}


def training_table(result: dict[str, Any]) -> list[str]:
    """Optimizer steps: what a step was, how long it took everyone, and where the time went."""
    lines, peak = result["training"], result.get("peak_tflops")
    columns: dict[str, Cell] = {
        "ms per step": _number("median_ms"),
        "best ms": _number("best_ms"),
        "states/s": _number("states_per_second"),
        "TFLOP/s": _teraflops,
        "of peak": lambda line: (
            f"{line['flops'] / line['median_ms'] / 1e9 / peak:.1%}" if peak and "flops" in line else ""
        ),
        **_ratios(lines),
        "weights MiB": _number("weights_bytes", _MIB),
        "peak MiB": _number("peak_bytes", _MIB),
    }
    words = {
        "shape": _sizes(result["shape"]),
        "dtype": f" in {result['dtype']}" if "dtype" in result else "",
        "timed": next((f" Medians of {line['steps']} steps." for line in measured(lines)), ""),
    }
    texts = [_TRAINING.format(**result | words), *_table(lines, columns)]
    if timed := [line for line in measured(lines) if "parts_ms" in line]:
        cells = {part: lambda line, part=part: _part(line["parts_ms"], part) for part in _TRAINING_PART_NAMES}
        texts += [_TRAINING_PARTS, *_table(timed, cells)]
    return texts


def _part(parts: Mapping[str, float], name: str) -> str:
    return f"{digits(parts[name])} ({parts[name] / sum(parts.values()):.0%})" if name in parts else ""


def collection_table(result: dict[str, Any]) -> list[str]:
    """What a trajectory costs in each way to collect it, and how far it is the exact one."""
    lines = result["collection"]
    baselines = list(filter(is_baseline, measured(lines)))
    published = {line["temperature"]: line["median_ms"] for line in reversed(baselines)}  # the first at each of them
    columns: dict[str, Cell] = {
        "trajectories/hour": _number("trajectories_per_hour"),
        "s each": _number("median_ms", 1e3),
        "best s": _number("best_ms", 1e3),
        "forwards": _number("forwards"),
        "published / this": lambda line: (
            f"{published[line['temperature']] / line['median_ms']:.1f}x" if line["temperature"] in published else ""
        ),
        "choices that differ": _share_of("choices_differ"),
        "tokens that differ": _share_of("tokens_differ"),
        "right answers": _share_of("right"),
    }
    timed = next((f" Medians of {line['turns']} turns." for line in measured(lines)), "")
    seconds = "Seconds are the GPU's" if result["run"]["gpu"] else "Seconds are CPU seconds of one thread"
    return [_COLLECTION.format(**result | {"timed": timed, "seconds": seconds}), *_table(lines, columns)]


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


def main_lines(groups: Groups) -> list[Line]:
    """tad_ext's lines of the main cases, under the case's title and with their "baselines"."""
    return [
        own | {"path": title + own["path"].removeprefix("tad_ext"), "baselines": list(filter(is_baseline, lines))}
        for title, lines in groups.items()
        for own in filter(is_own, lines)
        if own.get("main", True)
    ]


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


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, wide_last: bool = False) -> str:
    """The first column is text, the others are numbers; with `wide_last` the last one is text, too."""
    aligned = ["---", *("---:" for _ in header[1:])]
    if wide_last:
        aligned[-1] = "---"
    return "\n".join(
        "|" + "".join(f" {plain(cell)} |" if cell else " |" for cell in cells) for cells in (header, aligned, *rows)
    )


def plain(text: str) -> str:
    """On one line, harmless inside a table, and not too long."""
    return " ".join(text.split()).replace("|", "\\|")[:200]


def digits(value: float | None) -> str:
    """Four significant ones, and never an exponent: a small copy may move thousands of GB/s."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def time_text(milliseconds: float | None, places: int = 2) -> str:
    """Milliseconds, or microseconds where there is less than one."""
    if milliseconds is None:
        return ""
    return f"{milliseconds:.{places}f} ms" if milliseconds >= 1 else f"{milliseconds * 1e3:.1f} us"


def _table(lines: list[Line], columns: Mapping[str, Cell], *, wide_last: bool = False) -> list[str]:
    """A row for each line under its path, without empty columns; and a sentence for each that could not be measured."""
    good = measured(lines)
    cells = {name: [cell(line) for line in good] for name, cell in columns.items()}
    cells = {"": [line["path"] for line in good], **{name: column for name, column in cells.items() if any(column)}}
    tables = [markdown_table(list(cells), zip(*cells.values()), wide_last=wide_last)] if good else []
    return [*tables, *(f"{line['path']} failed: {plain(line['error'])}" for line in lines if "error" in line)]


def _number(name: str, unit: float = 1) -> Cell:
    return lambda line: digits(None if line.get(name) is None else line[name] / unit)


def _share_of(name: str) -> Cell:
    return lambda line: f"{line[name]:.1%}" if name in line else ""


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


def _memory(count: int) -> str:
    return f"{count / _MIB:,.1f} MiB" if count >= 0.1 * _MIB else f"{count / 2**10:,.1f} KiB"


def _sizes(shape: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in shape.items())
