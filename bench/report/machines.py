"""What was measured on a machine: in short, or every case and every path."""

from collections.abc import Mapping
from typing import Any

from ..results import Groups, Line
from .tables import (
    case_table,
    collection_table,
    copy_rate,
    counters_table,
    decoding_tables,
    plain,
    short_table,
    training_table,
)

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


class Document:
    """What a file of results says, whichever command has written it."""

    def __init__(self, content: dict[str, Any]) -> None:
        results = [content, *(step.get("result", {}) for step in content.get("steps", {}).values())]
        found = [benchmark["extra_info"] for benchmark in content.get("benchmarks", [])]
        results.append({"results": {info["title"]: info["lines"] for info in found if "lines" in info}})
        self.decoding = [group for result in results for group in result.get("decoding", [])]
        self.training = [result for result in results if result.get("training")]
        self.collection = [result for result in results if result.get("collection")]
        self.counters = [result for result in results if result.get("counters")]
        self.peers = next((result["peers"] for result in results if "peers" in result), {})

        # Of a case that several steps have measured, the latest line of each path.
        latest: dict[str, dict[str, Line]] = {}
        for title, lines in (group for result in results for group in result.get("results", {}).items()):
            known = latest.setdefault(title, {})
            known.update({line["path"]: line for line in lines if "error" not in line or line["path"] not in known})
        self.groups: Groups = {title: list(lines.values()) for title, lines in latest.items()}
        self.copy = copy_rate(self.groups)

        run = content.get("machine_info") or content.get("run") or {}
        self.gpu = run.get("gpu") or (content.get("machine", {}).get("gpu") or {}).get("name")
        self.name = self.gpu or run.get("processor", "no GPU")
        if run:
            self.name += f", {run['threads']} thread{'s' * (run['threads'] > 1)}, {run['instruction_set']}"


def benchmarks_page(contents: Mapping[str, dict[str, Any]]) -> str:
    """All machines, in their order, with everything that was measured."""
    pages = [page(name.removesuffix(".json"), content) for name, content in contents.items()]
    return "\n\n".join([_HEAD, "## In short", summary(contents), *pages]) + "\n"


def summary(contents: Mapping[str, dict[str, Any]]) -> str:
    """All machines in short, in their order; those that are expected and absent are "not measured"."""
    measured = {Document(content).gpu for content in contents.values()}
    missing = [f"**{name}**: not measured." for name in EXPECTED if name not in measured]
    return "\n\n".join([*map(section, contents.values()), *missing])


def section(content: dict[str, Any]) -> str:
    """One machine in short."""
    document = Document(content)
    texts = [_paragraph(document, content), *short_table(document.groups)]
    for group in document.decoding:
        texts += decoding_tables(group)
    for result in document.training:
        texts += training_table(result)
    for result in document.collection:
        texts += collection_table(result)
    missing = [
        f"{name} ({step['status']}" + (f": {plain(step['reason'])})" if step.get("reason") else ")")
        for name, step in content.get("steps", {}).items()
        if step["status"] != "ok"
    ]
    return "\n\n".join([*texts, *([f"Not complete: {', '.join(missing)}."] if missing else [])])


def page(title: str, content: dict[str, Any]) -> str:
    """One machine with everything that was measured on it."""
    document = Document(content)
    texts = [f"## {title}", _paragraph(document, content)]
    for case, lines in document.groups.items():
        texts += [f"### {plain(case)}", *case_table(lines, document.copy)]
    for result in document.counters:
        texts += ["### What the hardware counts", *counters_table(result)]
    for group in document.decoding:
        texts += [f"### Decoding, {plain(group['shape'])} shape", *decoding_tables(group, parts=True)]
    for result in document.training:
        texts += ["### Optimizer steps", *training_table(result)]
    for result in document.collection:
        texts += ["### Collecting trajectories", *collection_table(result)]
    return "\n\n".join(texts)


def _paragraph(document: Document, content: dict[str, Any]) -> str:
    """The machine that the numbers belong to, and of an H200's run what became of the package and its tests."""
    copy = f" A copy moves {document.copy / 1e9:,.0f} GB/s (read and written)." if document.copy else ""
    if "steps" not in content:
        run = content.get("machine_info") or content["run"]
        return f"**{document.name}**: torch {run['torch']}, Python {run['python']}; medians of one run.{copy}"

    machine, steps = content["machine"], content["steps"]
    driver = (machine.get("gpu") or {}).get("driver_version")
    versions = [f"driver {driver}"] if driver else []
    versions += [f"{name} {machine[name]}" for name in ("torch", "nvcc", "transformers") if machine.get(name)]
    if machine.get("revision"):
        versions.append(f"revision {machine['revision'][:10]}{'' if machine.get('revision_is_clean') else ', changed'}")
    quick = " A quick run: sizes too small to mean anything." if content.get("quick") else ""
    install = steps.get("install", {})
    installed = f"Installed in {install['seconds']:.0f} s." if install.get("status") == "ok" else "Not installed anew."
    tested = [f"{name}: {_counts(steps[step])}." for step, name in _TESTS.items() if steps.get(step, {}).get("result")]
    tests = " ".join(tested or ["GPU tests: not run."])
    return f"**{document.name}**: {', '.join(versions)}.{quick}{copy} {installed} {tests}{_peers(document)}"


def _peers(document: Document) -> str:
    """Whose kernels stand beside ours, and whose are not installed."""
    there = [f"{name} {version}" for name, version in document.peers.items() if version]
    missing = [name for name, version in document.peers.items() if not version]
    named = {"Beside": there, "Without": missing}
    return "".join(f" {word} {' and '.join(names)}." for word, names in named.items() if names)


def _counts(step: dict[str, Any]) -> str:
    counts = step["result"]
    failed = counts["failed"] + counts["errors"]
    return f"{counts['passed']:,} passed, {failed} failed, {counts['skipped']} skipped in {step['seconds']:.0f} s"
