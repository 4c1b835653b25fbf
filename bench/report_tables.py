"""Benchmark documents as Markdown, in short: a paragraph and a table of tad_ext's lines per machine.

Where a document has several sizes, the table has the one at which everything was measured; report_details.py has all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import decode_tables
from columns import bytes_per_second, ratio
from markdown_table import markdown_table, plain
from results import Groups, Line, copy_bytes_per_second, decoding_of, groups_of, is_own, main_groups_of

NOT_MEASURED = "not measured"
EXPECTED = ("NVIDIA H200",)  # GPUs that the tables speak of, measured or not


def report(documents: Mapping[str, dict[str, Any]]) -> str:
    """All machines, by file name; those that are expected and absent are "not measured"."""
    sections = [machine_section(documents[name]) for name in sorted(documents)]
    measured = {_gpu(document).get("name") for document in documents.values()}
    sections += [f"**{name}**: {NOT_MEASURED}." for name in EXPECTED if name not in measured]
    return "\n\n".join(sections)


def machine_section(document: dict[str, Any]) -> str:
    """The machine, and its tables."""
    return "\n\n".join([machine_paragraph(document), *_tables(document)])


def machine_paragraph(document: dict[str, Any]) -> str:
    """What the numbers belong to."""
    return _h200_paragraph(document) if "steps" in document else _cpu_paragraph(document)


def _tables(document: dict[str, Any]) -> Iterator[str]:
    kernels = [cells for groups in main_groups_of(document) for cells in _kernel_rows(groups)]
    if kernels:
        yield _kernel_table(kernels)
    steps = document.get("steps", {})
    if steps.get("forward", {}).get("result", {}).get("forwards", []):
        yield forward_table(steps["forward"]["result"])
    yield from map(decode_tables.markdown, decoding_of(document))
    missing = [f"{name} ({_status(step)})" for name, step in steps.items() if step["status"] != "ok"]
    if missing:
        yield f"Not complete: {', '.join(missing)}."


def _gpu(document: dict[str, Any]) -> dict[str, Any]:
    return document.get("machine", {}).get("gpu") or {}


def _cpu_paragraph(document: dict[str, Any]) -> str:
    run = document["run"]
    one_size = not isinstance(run.get("rows", []), list)  # of all cases, whose titles do not name it
    sizes = f"{_number(run.get('rows'))} rows of {_number(run.get('vocabulary'))}; " if one_size else ""
    return (
        f"**{run.get('gpu') or run.get('processor')}, {run.get('threads')} threads, {run.get('instruction_set')}**: "
        f"{sizes}torch {run.get('torch')}, Python {run.get('python')}; medians "
        f"of one run.{_copy_sentence(list(groups_of(document)))}"
    )


def _h200_paragraph(document: dict[str, Any]) -> str:
    machine, steps = document["machine"], document["steps"]
    gpu = _gpu(document)
    versions = [f"{name} {machine[name]}" for name in ("torch", "nvcc", "transformers") if machine.get(name)]
    if gpu.get("driver_version"):
        versions.insert(0, f"driver {gpu['driver_version']}")
    if machine.get("revision"):
        versions.append(f"revision {machine['revision'][:10]}{'' if machine.get('revision_is_clean') else ', changed'}")
    quick = " A quick run: sizes too small to mean anything." if document.get("quick") else ""
    return (
        f"**{gpu.get('name', 'no GPU')}**: {', '.join(versions)}.{quick}{_copy_sentence(list(groups_of(document)))} "
        f"{_built(steps.get('build', {}))} {_tested(steps.get('tests', {}))}"
    )


def _kernel_table(rows: list[tuple[str, ...]]) -> str:
    """Without the columns for which nobody has anything."""
    header = ("", "tad_ext", "warm", "cold", "GB/s", "of the copy", "memory", "baselines (their time / ours)")
    used = [index for index in range(len(header)) if any(cells[index] for cells in rows)]
    return markdown_table(
        [header[index] for index in used], [[cells[index] for index in used] for cells in rows], wide_last=True
    )


def _kernel_rows(groups: Groups) -> Iterator[tuple[str, ...]]:
    copy = copy_bytes_per_second(groups)
    for title, lines in groups.items():
        for own in lines:
            if not is_own(own["path"]):
                continue
            name = title + own["path"].removeprefix("tad_ext")
            if "error" in own:
                yield (name, f"{NOT_MEASURED}: {own['error']}", *6 * ("",))
                continue
            bound_by_bytes = bool(own.get("elements") and own.get("bytes"))
            rate = bytes_per_second(own) if bound_by_bytes else 0.0
            yield (
                name,
                time_text(own["median_ms"], 2),
                time_text(own["warm_median_ms"], 2) if "warm_median_ms" in own else "",
                time_text(own["cold_median_ms"], 2) if "cold_median_ms" in own else "",
                f"{rate / 1e9:,.{0 if rate >= 1e11 else 1}f}" if bound_by_bytes else _flops(own),
                f"{rate / copy:.0%}" if bound_by_bytes and copy else "",
                _memory(own),
                _baselines(lines, own),
            )


def forward_table(result: dict[str, Any]) -> str:
    """Forwards per second, and the share of the output head: what its absence saves."""
    measured = [line for line in result["forwards"] if "error" not in line]
    without = next((line["median_ms"] for line in measured if line.get("rows") == 0), None)
    rows = [
        (
            f"forward, {result.get('dtype')}, {_number(result.get('positions'))} positions, {line['path']}",
            time_text(line["median_ms"], 2),
            f"{1e3 / line['median_ms']:,.1f}",
            f"{line['flops'] / line['median_ms'] / 1e9:,.0f}" if line.get("flops") else "",
            NOT_MEASURED if without is None else f"{max(0.0, 1 - without / line['median_ms']):.1%}",
            _memory(line) or NOT_MEASURED,
        )
        for line in measured
    ]
    shape = ", ".join(f"{name} {_number(value)}" for name, value in result.get("shape", {}).items())
    header = ("", "time", "forwards/s", "TFLOP/s", "of it the head", "memory")
    return (
        f"Random weights, {_number(result.get('parameters'))} parameters ({shape}):\n\n{markdown_table(header, rows)}"
    )


def _baselines(lines: list[Line], own: Line) -> str:
    cells = []
    for line in lines:
        if line.get("baseline") and "error" in line:
            cells.append(f"{line['path']} failed")
        elif line.get("baseline"):
            factor = ratio(line, own)
            digits = 1 if factor >= 2 else 2
            cells.append(f"{line['path']} {time_text(line['median_ms'], 1)} (**{factor:.{digits}f}x**)")
    return ", ".join(cells) or NOT_MEASURED


def _copy_sentence(groups: list[Groups]) -> str:
    rates = [rate for rate in map(copy_bytes_per_second, groups) if rate]
    return f" A copy moves {max(rates) / 1e9:,.0f} GB/s (read and written)." if rates else ""


def _built(step: dict[str, Any]) -> str:
    return f"Built in {step['seconds']:.0f} s." if step.get("status") == "ok" else f"Build: {NOT_MEASURED}."


def _tested(step: dict[str, Any]) -> str:
    counts = step.get("result", {})
    if "passed" not in counts:
        return f"GPU tests: {NOT_MEASURED}."
    return (
        f"GPU tests: {counts['passed']} passed, {counts['failed'] + counts['errors']} failed, "
        f"{counts['skipped']} skipped in {step.get('seconds', 0):.0f} s."
    )


def _status(step: dict[str, Any]) -> str:
    return f"{step['status']}: {plain(step['reason'])}" if step.get("reason") else step["status"]


def _memory(line: Line) -> str:
    if "peak_bytes" not in line:
        return ""
    mebibytes = line["peak_bytes"] / 2**20
    return f"{mebibytes:,.1f} MiB" if mebibytes >= 0.1 else f"{1024 * mebibytes:,.1f} KiB"


def _flops(line: Line) -> str:
    if not line.get("flops"):
        return ""
    rate = line["flops"] / line["median_ms"] * 1e3
    return f"{rate / 1e12:,.0f} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:,.0f} GFLOP/s"


def time_text(milliseconds: float, digits: int) -> str:
    """Milliseconds, or microseconds where there is less than one."""
    if milliseconds >= 1:
        return f"{milliseconds:.{digits}f} ms"
    return f"{milliseconds * 1e3:.1f} us"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
