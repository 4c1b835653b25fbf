"""The results of benchmarks: lines of numbers, and the JSON files they stand in.

A line is {"path": who, "median_ms": ..., "best_ms": ..., "bytes": ..., ...}, or has "error" instead of times. Groups
are {title of a case: its lines}. `python -m pytest bench --benchmark-json FILE` keeps a group as the "extra_info" of
each benchmark; `python -m bench.decode --result FILE` writes {"run": machine, "decoding": [a model, with "lines"]};
`python -m bench.h200` {"machine": ..., "steps": {name: {"status": ..., "result": {"results": groups, ...}}}}.

Every ratio and rate is of `median_ms`: on a CPU with warm caches, `cold_median_ms` being the other time; on a GPU with
cold ones, `warm_median_ms` being the other. "main" lines are those of a short table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Line = dict[str, Any]
Groups = dict[str, list[Line]]


def write_json(path: Path, document: Any) -> None:
    """Beside `path` first, then renamed: a reader never meets half of it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """ValueError, naming the file, if it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def failed(path: str, error: Exception) -> Line:
    """The line of what could not be measured."""
    return {"path": path, "error": f"{type(error).__name__}: {error}".strip().splitlines()[0]}


def is_own(line: Line) -> bool:
    """Whether a line is tad_ext's."""
    return line["path"].split(",")[0] == "tad_ext"


def is_baseline(line: Line) -> bool:
    """Whether it is another's way to do the same."""
    return not is_own(line) and line["path"] != "copy"


def measured(lines: list[Line]) -> list[Line]:
    """Those that did not fail."""
    return [line for line in lines if "error" not in line]


def groups_of(document: dict[str, Any]) -> Groups:
    """All operators' groups. Of a case that several steps have measured, the latest line of each path."""
    if "benchmarks" in document:
        found = [benchmark["extra_info"] for benchmark in document["benchmarks"]]
        return {info["title"]: info["lines"] for info in found if "lines" in info}
    latest: dict[str, dict[str, Line]] = {}
    for result in _step_results(document):
        for title, lines in result.get("results", {}).items():
            known = latest.setdefault(title, {})
            known.update({line["path"]: line for line in lines if "error" not in line or line["path"] not in known})
    return {title: list(lines.values()) for title, lines in latest.items()}


def decoding_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured of decoding, one object per model."""
    return [group for result in (document, *_step_results(document)) for group in result.get("decoding", [])]


def results_with(name: str, document: dict[str, Any]) -> list[dict[str, Any]]:
    """The results of the steps that have something of this name: "training", "counters"."""
    return [result for result in _step_results(document) if result.get(name)]


def bytes_per_second(line: Line) -> float:
    """The least traffic over the time taken."""
    return line["bytes"] / line["median_ms"] * 1e3


def copy_rate(groups: Groups) -> float | None:
    """Bytes per second of the copy that was measured beside the groups."""
    copies = [line for lines in groups.values() for line in measured(lines) if line["path"] == "copy"]
    return bytes_per_second(copies[0]) if copies else None


def _step_results(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [step.get("result", {}) for step in document.get("steps", {}).values()]
