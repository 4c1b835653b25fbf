"""Benchmark documents as Markdown: a paragraph and tables per machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from results import Groups, Line, copy_bytes_per_second, groups_of

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
    return _h200_section(document) if "steps" in document else _cpu_section(document)


def _gpu(document: dict[str, Any]) -> dict[str, Any]:
    return document.get("machine", {}).get("gpu") or {}


def _cpu_section(document: dict[str, Any]) -> str:
    run, results = document["run"], document["results"]
    versions = f"torch {run.get('torch')}, Python {run.get('python')}"
    sizes = f"{_number(run.get('rows'))} rows of {_number(run.get('vocabulary'))}"
    head = f"**{run.get('processor')}, {run.get('threads')} threads, {run.get('instruction_set')}**: "
    rows = [_row(title, _time(own["median_ms"], 2), _baselines(lines, own)) for title, lines, own in _own(results)]
    text = f"{head}{sizes}; {versions}; medians of one run.{_copy_sentence([results])}"
    return f"{text}\n\n{_table(('', 'tad_ext', 'baselines (their time / ours)'), rows)}"


def _h200_section(document: dict[str, Any]) -> str:
    machine, steps = document["machine"], document["steps"]
    gpu = _gpu(document)
    versions = [f"{name} {machine[name]}" for name in ("torch", "nvcc", "transformers") if machine.get(name)]
    if gpu.get("driver_version"):
        versions.insert(0, f"driver {gpu['driver_version']}")
    if machine.get("revision"):
        versions.append(f"revision {machine['revision'][:10]}{'' if machine.get('revision_is_clean') else ', changed'}")
    quick = " A quick run: sizes too small to mean anything." if document.get("quick") else ""
    groups = list(groups_of(document))
    parts = [
        f"**{gpu.get('name', 'no GPU')}**: {', '.join(versions)}.{quick}{_copy_sentence(groups)} "
        f"{_built(steps.get('build', {}))} {_tested(steps.get('tests', {}))}"
    ]
    if groups:
        header = ("", "tad_ext", "warm", "GB/s", "of the copy", "memory", "baselines (their time / ours)")
        parts.append(_table(header, [row for measured in groups for row in _kernel_rows(measured)]))
    forwards = steps.get("forward", {}).get("result", {}).get("forwards", [])
    if forwards:
        parts.append(_forward_table(steps["forward"]["result"]))
    missing = [f"{name} ({_status(step)})" for name, step in steps.items() if step["status"] != "ok"]
    if missing:
        parts.append(f"Not complete: {', '.join(missing)}.")
    return "\n\n".join(parts)


def _kernel_rows(groups: Groups) -> Iterable[str]:
    copy = copy_bytes_per_second(groups)
    for title, lines, own in _own(groups):
        bandwidth = own.get("bytes", 0) / own["median_ms"] * 1e3
        bound_by_bytes = bool(own.get("elements") and bandwidth)
        yield _row(
            title,
            _time(own["median_ms"], 2),
            _time(own["warm_median_ms"], 2) if "warm_median_ms" in own else NOT_MEASURED,
            f"{bandwidth / 1e9:,.0f}" if bound_by_bytes else _teraflops(own),
            f"{bandwidth / copy:.0%}" if bound_by_bytes and copy else "",
            f"{own['peak_bytes'] / 2**20:,.1f} MiB" if "peak_bytes" in own else NOT_MEASURED,
            _baselines(lines, own),
        )
    for title, lines in groups.items():
        for line in lines:
            if line["path"] == "tad_ext" and "error" in line:
                yield _row(title, f"{NOT_MEASURED}: {line['error']}", "", "", "", "", "")


def _forward_table(result: dict[str, Any]) -> str:
    """Forwards per second, and the share of the output head: what its absence saves."""
    measured = [line for line in result["forwards"] if "error" not in line]
    without = next((line["median_ms"] for line in measured if line.get("rows") == 0), None)
    rows = [
        _row(
            f"forward, {result.get('dtype')}, {_number(result.get('positions'))} positions, {line['path']}",
            _time(line["median_ms"], 2),
            f"{1e3 / line['median_ms']:,.1f}",
            _teraflops(line).removesuffix(" TFLOP/s"),
            NOT_MEASURED if without is None else f"{max(0.0, 1 - without / line['median_ms']):.1%}",
            f"{line['peak_bytes'] / 2**20:,.1f} MiB" if "peak_bytes" in line else NOT_MEASURED,
        )
        for line in measured
    ]
    shape = ", ".join(f"{name} {_number(value)}" for name, value in result.get("shape", {}).items())
    header = ("", "time", "forwards/s", "TFLOP/s", "of it the head", "memory")
    return f"Random weights, {_number(result.get('parameters'))} parameters ({shape}):\n\n{_table(header, rows)}"


def _own(groups: Groups) -> Iterable[tuple[str, list[Line], Line]]:
    """(title, lines, tad_ext's line) of the groups where tad_ext was measured."""
    for title, lines in groups.items():
        for line in lines:
            if line["path"] == "tad_ext" and "error" not in line:
                yield title, lines, line


def _baselines(lines: list[Line], own: Line) -> str:
    cells = []
    for line in lines:
        if line.get("baseline") and "error" in line:
            cells.append(f"{line['path']} failed")
        elif line.get("baseline"):
            factor = line["median_ms"] / own["median_ms"]
            cells.append(f"{line['path']} {_time(line['median_ms'], 1)} (**{factor:.1f}x**)")
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
    return f"{step['status']}: {_plain(step['reason'])}" if step.get("reason") else step["status"]


def _teraflops(line: Line) -> str:
    return f"{line['flops'] / line['median_ms'] / 1e9:,.0f} TFLOP/s" if line.get("flops") else ""


def _time(milliseconds: float, digits: int) -> str:
    if milliseconds >= 1:
        return f"{milliseconds:.{digits}f} ms"
    return f"{milliseconds * 1e3:.1f} us"


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _plain(text: str, most: int = 200) -> str:
    """On one line, and harmless inside a table."""
    return " ".join(text.split()).replace("|", "\\|")[:most]


def _row(title: str, *cells: str) -> str:
    return f"| {' | '.join((_plain(title), *(_plain(cell) for cell in cells)))} |"


def _table(header: tuple[str, ...], rows: Iterable[str]) -> str:
    aligned = ["---", *("---:" if index < len(header) else "---" for index in range(2, len(header) + 1))]
    return "\n".join([f"| {' | '.join(header)} |", f"| {' | '.join(aligned)} |", *rows]).replace("|  |", "| |", 1)
