"""What was measured on a machine: in short, or every case and every path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..results import copy_rate, decoding_of, groups_of
from .decoding import decoding_tables, forward_table
from .operators import case_table, short_table
from .text import plain

EXPECTED = ("NVIDIA H200",)  # GPUs that the tables speak of, measured or not
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
    """All machines, by file name; those that are expected and absent are "not measured"."""
    sections = [section(documents[name]) for name in sorted(documents)]
    measured = {_gpu(document).get("name") for document in documents.values()}
    return "\n\n".join([*sections, *(f"**{name}**: not measured." for name in EXPECTED if name not in measured)])


def section(document: dict[str, Any]) -> str:
    """One machine in short."""
    return "\n\n".join([paragraph(document), *_short_tables(document)])


def benchmarks_page(documents: Mapping[str, dict[str, Any]]) -> str:
    """All machines, by file name, with everything that was measured."""
    pages = [page(name.removesuffix(".json"), documents[name]) for name in sorted(documents)]
    return "\n\n".join([_HEAD, "## In short", summary(documents), *pages]) + "\n"


def page(title: str, document: dict[str, Any]) -> str:
    """One machine with everything that was measured on it."""
    texts = [f"## {title}", paragraph(document)]
    for groups in groups_of(document):
        for case, lines in groups.items():
            texts.append(f"### {plain(case)}\n\n{case_table(lines, copy_rate(groups))}")
    for group in decoding_of(document):
        texts.append(f"### Decoding, {plain(group['shape'])} shape\n\n{decoding_tables(group, parts=True)}")
    return "\n\n".join(texts)


def paragraph(document: dict[str, Any]) -> str:
    """The machine that the numbers belong to."""
    rates = [rate for rate in map(copy_rate, groups_of(document)) if rate]
    copy = f" A copy moves {max(rates) / 1e9:,.0f} GB/s (read and written)." if rates else ""
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
    if steps.get("forward", {}).get("result", {}).get("forwards"):
        yield forward_table(steps["forward"]["result"])
    yield from map(decoding_tables, decoding_of(document))
    missing = [
        f"{name} ({step['status']}" + (f": {plain(step['reason'])})" if step.get("reason") else ")")
        for name, step in steps.items()
        if step["status"] != "ok"
    ]
    if missing:
        yield f"Not complete: {', '.join(missing)}."


def _gpu(document: dict[str, Any]) -> dict[str, Any]:
    return document.get("machine", {}).get("gpu") or {}


def _h200_paragraph(document: dict[str, Any], copy: str) -> str:
    machine, steps, gpu = document["machine"], document["steps"], _gpu(document)
    versions = [f"driver {gpu['driver_version']}"] if gpu.get("driver_version") else []
    versions += [f"{name} {machine[name]}" for name in ("torch", "nvcc", "transformers") if machine.get(name)]
    if machine.get("revision"):
        versions.append(f"revision {machine['revision'][:10]}{'' if machine.get('revision_is_clean') else ', changed'}")
    quick = " A quick run: sizes too small to mean anything." if document.get("quick") else ""
    build, tests = steps.get("build", {}), steps.get("tests", {})
    built = f"Built in {build['seconds']:.0f} s." if build.get("status") == "ok" else "Build: not measured."
    counts = tests.get("result", {})
    tested = (
        f"GPU tests: {counts['passed']} passed, {counts['failed'] + counts['errors']} failed, "
        f"{counts['skipped']} skipped in {tests['seconds']:.0f} s."
        if counts
        else "GPU tests: not measured."
    )
    return f"**{gpu.get('name', 'no GPU')}**: {', '.join(versions)}.{quick}{copy} {built} {tested}"
