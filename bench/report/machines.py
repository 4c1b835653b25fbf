"""What was measured on a machine: in short, or every case and every path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..results import copy_rate, decoding_of, groups_of, results_with
from .counters import counters_table
from .decoding import decoding_tables
from .operators import case_table, short_table
from .text import plain
from .training import training_table

EXPECTED = ("NVIDIA H200",)  # GPUs that the tables speak of, measured or not
_TESTS = {"first-tests": "The operators' first GPU tests", "tests": "All GPU tests"}
_HEAD = """# Benchmarks

Written by `make report` from the files in bench/results/. A line's time is its median: on a CPU of rounds with warm
caches, with emptied ones beside it ("cold ms"); on a GPU with emptied caches, with warm ones beside it ("warm ms").
GB/s are of the least traffic the work could have: every input read once, every output written once; "of copy" is their
share of what a copy moves in the same run. "x / this" is how many times as long x takes as the line. Memory (MiB) is
the peak beyond the inputs, results included.

Of decoding, "layers" is the model without its output head, and "neither" all but layers and head; each is a mean over
the forwards of a run. forwards/s and tokens/s are of whole runs, prompt included, but with CUDA graphs of the median
step, whose parts are not known then; a run with a cache decodes the whole canvas, one without decodes its beginning.
Memory is the peak beyond the weights, cache included."""


def summary(documents: Mapping[str, dict[str, Any]]) -> str:
    """All machines, in their order; those that are expected and absent are "not measured"."""
    sections = [section(document) for document in documents.values()]
    measured = {_gpu(document).get("name") for document in documents.values()}
    return "\n\n".join([*sections, *(f"**{name}**: not measured." for name in EXPECTED if name not in measured)])


def section(document: dict[str, Any]) -> str:
    """One machine in short."""
    return "\n\n".join([paragraph(document), *_short_tables(document)])


def benchmarks_page(documents: Mapping[str, dict[str, Any]]) -> str:
    """All machines, in their order, with everything that was measured."""
    pages = [page(name.removesuffix(".json"), document) for name, document in documents.items()]
    return "\n\n".join([_HEAD, "## In short", summary(documents), *pages]) + "\n"


def page(title: str, document: dict[str, Any]) -> str:
    """One machine with everything that was measured on it."""
    texts = [f"## {title}", paragraph(document)]
    groups = groups_of(document)
    texts += [f"### {plain(case)}\n\n{case_table(lines, copy_rate(groups))}" for case, lines in groups.items()]
    texts += [f"### What the hardware counts\n\n{counters_table(one)}" for one in results_with("counters", document)]
    for group in decoding_of(document):
        texts.append(f"### Decoding, {plain(group['shape'])} shape\n\n{decoding_tables(group, parts=True)}")
    texts += [f"### Optimizer steps\n\n{training_table(one)}" for one in results_with("training", document)]
    return "\n\n".join(texts)


def paragraph(document: dict[str, Any]) -> str:
    """The machine that the numbers belong to."""
    rate = copy_rate(groups_of(document))
    copy = f" A copy moves {rate / 1e9:,.0f} GB/s (read and written)." if rate else ""
    if "steps" in document:
        return _h200_paragraph(document, copy)
    run = document.get("machine_info") or document["run"]
    return (
        f"**{run.get('gpu') or run['processor']}, {run['threads']} threads, {run['instruction_set']}**: torch "
        f"{run['torch']}, Python {run['python']}; medians of one run.{copy}"
    )


def machine_name(document: dict[str, Any]) -> str:
    """In a few words."""
    if "steps" in document:
        return _gpu(document).get("name", "no GPU")
    run = document.get("machine_info") or document["run"]
    return f"{run['processor']}, {run['threads']} threads, {run['instruction_set']}"


def _short_tables(document: dict[str, Any]) -> Iterator[str]:
    operators = short_table(groups_of(document))
    if operators:
        yield operators
    steps = document.get("steps", {})
    yield from map(decoding_tables, decoding_of(document))
    yield from map(training_table, results_with("training", document))
    missing = [
        f"{name} ({step['status']}" + (f": {plain(step['reason'])})" if step.get("reason") else ")")
        for name, step in steps.items()
        if step["status"] != "ok"
    ]
    if missing:
        yield f"Not complete: {', '.join(missing)}."


def on_a_gpu(document: dict[str, Any]) -> bool:
    """Whether a document's numbers are a GPU's."""
    return bool(_gpu(document) or document.get("run", {}).get("gpu"))


def _gpu(document: dict[str, Any]) -> dict[str, Any]:
    return document.get("machine", {}).get("gpu") or {}


def _h200_paragraph(document: dict[str, Any], copy: str) -> str:
    machine, steps, gpu = document["machine"], document["steps"], _gpu(document)
    versions = [f"driver {gpu['driver_version']}"] if gpu.get("driver_version") else []
    versions += [f"{name} {machine[name]}" for name in ("torch", "nvcc", "transformers") if machine.get(name)]
    if machine.get("revision"):
        versions.append(f"revision {machine['revision'][:10]}{'' if machine.get('revision_is_clean') else ', changed'}")
    quick = " A quick run: sizes too small to mean anything." if document.get("quick") else ""
    install = steps.get("install", {})
    installed = f"Installed in {install['seconds']:.0f} s." if install.get("status") == "ok" else "Not installed anew."
    tested = [f"{name}: {_counts(steps[step])}." for step, name in _TESTS.items() if steps.get(step, {}).get("result")]
    tests = " ".join(tested or ["GPU tests: not run."])
    return f"**{gpu.get('name', 'no GPU')}**: {', '.join(versions)}.{quick}{copy} {installed} {tests}"


def _counts(step: dict[str, Any]) -> str:
    counts = step["result"]
    failed = counts["failed"] + counts["errors"]
    return f"{counts['passed']:,} passed, {failed} failed, {counts['skipped']} skipped in {step['seconds']:.0f} s"
