"""The JSON files of benchmarks: written so that a reader never meets half of one, and checked when they are read.

Three kinds. `python -m pytest bench --bench-json FILE` writes {"run": machine and sizes, "results": groups};
`bench/decode --result FILE` writes {"run": machine, "decoding": [one object per model, with its "lines"]}; `bench/h200`
writes {"machine": ..., "steps": {name: {"status": ..., "result": {"results": groups, ...}}}}, where a step's result is
like one of the others. Groups are the same everywhere: title -> lines, and a line is {"path": who, "baseline": bool,
"median_ms": ..., "best_ms": ..., "bytes": ...}, or has "error" instead of times.

Every ratio and rate is of `median_ms`: on a CPU with warm caches, `cold_median_ms` being the other time; on a GPU with
cold ones, `warm_median_ms` being the other. A line's "rows" are the rows of logits it was measured at; "rows" in "run",
or beside "results", are those of the loss: whatever else was measured, it was at the first of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]
Groups = dict[str, list[Line]]

STATUSES = ("ok", "failed", "timed out", "skipped", "interrupted")
OUTCOMES = ("passed", "failed", "errors", "skipped")
_TIMES = tuple(f"{cache}{of}_ms" for cache in ("", "warm_", "cold_") for of in ("median", "best"))
_NUMBERS = (*_TIMES, "rows", "bytes", "elements", "flops", "peak_bytes", "cache_bytes")
_RATES = ("forwards_per_second", "tokens_per_second")


def write_results(path: Path, document: dict[str, Any]) -> None:
    """Write JSON beside `path` first, then rename it."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """ValueError, naming the file, if it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def read_results(path: Path) -> dict[str, Any]:
    """A benchmark's document. ValueError, naming file, key, value and what was expected, if it is none."""
    document = read_json(path)
    try:
        _check_document(document)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return document


def is_own(path: str) -> bool:
    """Whether a line is tad_ext's."""
    return path.split(",")[0] == "tad_ext"


def groups_of(document: dict[str, Any]) -> Iterator[Groups]:
    """The groups that were measured together, in one process."""
    for groups, _ in _groups_and_rows(document):
        yield groups


def main_groups_of(document: dict[str, Any]) -> Iterator[Groups]:
    """Of these, the ones of the size at which everything was measured, without variations. A file that has no sizes is
    shown whole.
    """
    for groups, rows in _groups_and_rows(document):
        first = rows[0] if isinstance(rows, list) and rows else rows
        yield {
            title: lines
            for title, lines in groups.items()
            if _sizes(lines) <= {None, first} and not any(line.get("variation") for line in lines)
        }


def _groups_and_rows(document: dict[str, Any]) -> Iterator[tuple[Groups, Any]]:
    if "results" in document:
        yield document["results"], document["run"].get("rows")
    for step in document.get("steps", {}).values():
        result = step.get("result", {})
        if "results" in result:
            yield result["results"], result.get("rows")


def _sizes(lines: list[Line]) -> set[Any]:
    return {line.get("rows") for line in lines}


def decoding_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What bench/decode measured, one object per model."""
    results = [document, *(step.get("result", {}) for step in document.get("steps", {}).values())]
    return [group for result in results for group in result.get("decoding", [])]


def copy_bytes_per_second(groups: Groups) -> float | None:
    """The memory bandwidth that was measured beside the groups; None if it was not."""
    for lines in groups.values():
        for line in lines:
            if line["path"] == "copy" and "median_ms" in line and line.get("bytes"):
                return line["bytes"] / line["median_ms"] * 1e3
    return None


def _check_document(document: Any) -> None:
    _expect(document, dict, "the document")
    if "steps" in document:
        gpu = _expect(document.get("machine"), dict, "machine").get("gpu")
        _expect({} if gpu is None else gpu, dict, "machine.gpu")
        for name, step in _expect(document["steps"], dict, "steps").items():
            where = f"steps[{name!r}]"
            _expect(step, dict, where)
            if step.get("status") not in STATUSES:
                raise ValueError(f"{where}.status is {step.get('status')!r}, expected one of {', '.join(STATUSES)}")
            _check_number(step.get("seconds", 0), f"{where}.seconds")
            result = _expect(step.get("result", {}), dict, f"{where}.result")
            for outcome in OUTCOMES if "passed" in result else ():
                _check_number(result.get(outcome), f"{where}.result.{outcome}")
            _check_rows(result.get("rows", []), f"{where}.result.rows")
            _check_groups(result.get("results", {}), f"{where}.result.results")
            _check_lines(result.get("forwards", []), f"{where}.result.forwards")
            _check_decoding(result.get("decoding", []), f"{where}.result.decoding")
    elif "run" in document:
        _check_rows(_expect(document["run"], dict, "run").get("rows", []), "run.rows")
        if "decoding" in document:
            _check_decoding(document["decoding"], "decoding")
        else:
            _check_groups(document.get("results"), "results")
    else:
        raise ValueError(
            'has neither "steps" (of bench/h200) nor "run" (of pytest bench --bench-json, or bench/decode)'
        )


def _check_decoding(groups: Any, where: str) -> None:
    for index, group in enumerate(_expect(groups, list, where)):
        lines = _expect(group, dict, f"{where}[{index}]").get("lines")
        _check_lines(lines, f"{where}[{index}].lines")
        for number, line in enumerate(lines):
            here = f"{where}[{index}].lines[{number}]"
            if "error" not in line:
                for rate in _RATES:
                    _check_number(line.get(rate), f"{here}.{rate}", positive=True)
                for part, ms in _expect(line.get("parts_ms"), dict, f"{here}.parts_ms").items():
                    _check_number(ms, f"{here}.parts_ms.{part}")


def _check_rows(rows: Any, where: str) -> None:
    for number in rows if isinstance(rows, list) else [rows]:
        _check_number(number, where)


def _check_groups(groups: Any, where: str) -> None:
    for title, lines in _expect(groups, dict, where).items():
        _check_lines(lines, f"{where}[{title!r}]")


def _check_lines(lines: Any, where: str) -> None:
    for index, line in enumerate(_expect(lines, list, where)):
        here = f"{where}[{index}]"
        _expect(line, dict, here)
        _expect(line.get("path"), str, f"{here}.path")
        if "error" in line:
            continue
        for key in ("median_ms", "best_ms"):
            if key not in line:
                raise ValueError(f"{here} has no {key}")
        for key in _NUMBERS:
            if line.get(key) is not None:
                _check_number(line[key], f"{here}.{key}", positive=key.endswith("_ms"))


def _check_number(value: Any, where: str, *, positive: bool = False) -> None:
    fits = type(value) in (int, float) and math.isfinite(value) and (value > 0 if positive else value >= 0)
    if not fits:
        raise ValueError(f"{where} is {value!r}, expected a number {'>' if positive else '>='} 0")


def _expect(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{where} is {value!r:.60}, expected a {kind.__name__}")
    return value
