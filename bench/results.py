"""The results of benchmarks: lines of numbers, and the JSON files they stand in.

A line is {"path": who, "median_ms": ..., "best_ms": ..., "bytes": ..., ...}, or has "error" instead of times. Groups
are {title of a case: its lines}. `python -m pytest bench --benchmark-json FILE` keeps a group as the "extra_info" of
each benchmark; `python -m bench.decode --result FILE` writes {"run": machine, "decoding": [a model, with "lines"]},
`bench.collect` {"run": machine, "collection": lines, ...}, `bench.train` {"run": machine, "training": lines, ...};
`python -m bench.h200` {"machine": ..., "launch_plans": [...], "steps": {name: {"status": ..., "result": {"results":
groups, ...}}}}.

Every ratio and rate is of `median_ms`: on a CPU with warm caches, `cold_median_ms` being the other time; on a GPU with
cold ones, `warm_median_ms` being the other. "main" lines are those of a short table.
"""

import json
from collections.abc import Callable, Mapping
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


class Turns:
    """Rivals that take turns. One that fails is left out from then on, and has a line that says why."""

    def __init__(self, rivals: Mapping[str, Any]) -> None:
        self.rivals, self._failed = rivals, dict[str, Line]()

    def each(self, measure: Callable[[Any], Any]) -> dict[str, Any]:
        """What is measured of each of them, by path."""
        results = {}
        for path, rival in self.rivals.items():
            if path not in self._failed:
                try:
                    results[path] = measure(rival)
                except Exception as error:
                    self._failed[path] = failed(path, error)
        return results

    def lines(self, numbers: Callable[[str], Line]) -> list[Line]:
        """A line for each path, of these numbers."""
        return [self._failed.get(path) or {"path": path, **numbers(path)} for path in self.rivals]


def attempt(path: str, measure: Callable[[], Line]) -> Line:
    """The line of what is measured once, or of why it could not be."""
    try:
        return {"path": path, **measure()}
    except Exception as error:
        return failed(path, error)


def is_own(line: Line) -> bool:
    """Whether a line is tad_ext's."""
    return line["path"].split(",")[0] == "tad_ext"


def is_baseline(line: Line) -> bool:
    """Whether it is another's way to do the same."""
    return not is_own(line) and line["path"] != "copy"


def failed_lines(result: dict[str, Any]) -> str | None:
    """The first of the lines that could not be measured, if there are any."""
    groups = [*result.get("results", {}).items()]
    groups += [(name, result.get(name, [])) for name in ("training", "collection", "counters")]
    groups += [(group["shape"], group["lines"]) for group in result.get("decoding", [])]
    failed = [
        f"{title}, {line['path']}: {line['error']}" for title, group in groups for line in group if "error" in line
    ]
    return f"{len(failed)} failed; first: {failed[0]}" if failed else None
