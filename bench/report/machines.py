"""What was measured on a machine: in short, or every case and every path."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from ..results import Groups, Line
from .tables import case_table, copy_rate, counters_table, decoding_tables, plain, short_table, training_table

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


def benchmarks_page(documents: Mapping[str, dict[str, Any]]) -> str:
    """All machines, in their order, with everything that was measured."""
    pages = [page(name.removesuffix(".json"), document) for name, document in documents.items()]
    return "\n\n".join([_HEAD, "## In short", summary(documents), *pages]) + "\n"


def summary(documents: Mapping[str, dict[str, Any]]) -> str:
    """All machines in short, in their order; those that are expected and absent are "not measured"."""
    sections = [section(document) for document in documents.values()]
    measured = {_gpu(document).get("name") for document in documents.values()}
    return "\n\n".join([*sections, *(f"**{name}**: not measured." for name in EXPECTED if name not in measured)])


def section(document: dict[str, Any]) -> str:
    """One machine in short."""
    texts = [_paragraph(document), *short_table(groups_of(document))]
    texts += chain.from_iterable(map(decoding_tables, _decoding(document)))
    texts += chain.from_iterable(map(training_table, _results_with("training", document)))
    missing = [
        f"{name} ({step['status']}" + (f": {plain(step['reason'])})" if step.get("reason") else ")")
        for name, step in document.get("steps", {}).items()
        if step["status"] != "ok"
    ]
    return "\n\n".join([*texts, *([f"Not complete: {', '.join(missing)}."] if missing else [])])


def page(title: str, document: dict[str, Any]) -> str:
    """One machine with everything that was measured on it."""
    groups = groups_of(document)
    copy = copy_rate(groups)
    texts = [f"## {title}", _paragraph(document)]
    for case, lines in groups.items():
        texts += [f"### {plain(case)}", *case_table(lines, copy)]
    for result in _results_with("counters", document):
        texts += ["### What the hardware counts", *counters_table(result)]
    for group in _decoding(document):
        texts += [f"### Decoding, {plain(group['shape'])} shape", *decoding_tables(group, parts=True)]
    for result in _results_with("training", document):
        texts += ["### Optimizer steps", *training_table(result)]
    return "\n\n".join(texts)


def machine_name(document: dict[str, Any]) -> str:
    """In a few words."""
    if "steps" in document:
        return _gpu(document).get("name", "no GPU")
    run = _run(document)
    return f"{run.get('gpu') or run['processor']}, {run['threads']} threads, {run['instruction_set']}"


def on_a_gpu(document: dict[str, Any]) -> bool:
    """Whether a document's numbers are a GPU's."""
    return bool(_gpu(document) or document.get("run", {}).get("gpu"))


def groups_of(document: dict[str, Any]) -> Groups:
    """All operators' groups. Of a case that several steps have measured, the latest line of each path."""
    latest: dict[str, dict[str, Line]] = {}
    for result in _results(document):
        for title, lines in result.get("results", {}).items():
            known = latest.setdefault(title, {})
            known.update({line["path"]: line for line in lines if "error" not in line or line["path"] not in known})
    return {title: list(lines.values()) for title, lines in latest.items()}


def _decoding(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured of decoding, one object per model."""
    return [group for result in _results(document) for group in result.get("decoding", [])]


def _results_with(name: str, document: dict[str, Any]) -> list[dict[str, Any]]:
    return [result for result in _results(document) if result.get(name)]


def _results(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each step; of a document without steps its only one."""
    if "benchmarks" in document:
        found = [benchmark["extra_info"] for benchmark in document["benchmarks"]]
        return [{"results": {info["title"]: info["lines"] for info in found if "lines" in info}}]
    return [document, *(step.get("result", {}) for step in document.get("steps", {}).values())]


def _run(document: dict[str, Any]) -> dict[str, Any]:
    return document.get("machine_info") or document["run"]


def _gpu(document: dict[str, Any]) -> dict[str, Any]:
    return document.get("machine", {}).get("gpu") or {}


def _paragraph(document: dict[str, Any]) -> str:
    """The machine that the numbers belong to, and of an H200's run what became of the package and its tests."""
    name, rate = machine_name(document), copy_rate(groups_of(document))
    copy = f" A copy moves {rate / 1e9:,.0f} GB/s (read and written)." if rate else ""
    if "steps" not in document:
        run = _run(document)
        return f"**{name}**: torch {run['torch']}, Python {run['python']}; medians of one run.{copy}"

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
    return f"**{name}**: {', '.join(versions)}.{quick}{copy} {installed} {tests}"


def _counts(step: dict[str, Any]) -> str:
    counts = step["result"]
    failed = counts["failed"] + counts["errors"]
    return f"{counts['passed']:,} passed, {failed} failed, {counts['skipped']} skipped in {step['seconds']:.0f} s"
