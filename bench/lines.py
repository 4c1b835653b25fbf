"""The lines of a benchmark's table, as results.py describes them."""

from __future__ import annotations

from cases import Case
from results import Line, is_own
from work import Implementation, Workload


def line(case: Case, workload: Workload, path: str) -> Line:
    """Everything about a path but its times."""
    return {
        "path": path,
        "baseline": not is_own(path) and path != "copy",
        "rows": case.rows,
        "variation": case.variation,
        "bytes": workload.bytes,
        "elements": workload.elements,
        "flops": workload.flops,
    }


def failed_line(case: Case, path: str, error: Exception) -> Line:
    """A path that could not be measured."""
    message = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return {"path": path, "baseline": not is_own(path), "rows": case.rows, "error": message}


def in_order(implementations: dict[str, Implementation]) -> dict[str, Implementation]:
    """tad_ext first: what is wanted most is measured even where a baseline breaks."""
    return dict(sorted(implementations.items(), key=lambda item: not is_own(item[0])))
