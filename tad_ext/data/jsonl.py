"""Reading text files, above all those of one JSON object a line, with errors that say where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_jsonl(path: str | Path, *, argument: str) -> list[tuple[str, dict[str, Any]]]:
    """Every row of a file with its place ("problems.jsonl, line 3") for messages; blank lines are left out.

    Args:
        path: UTF-8 text, one JSON object a line.
        argument: the setting that named the file, for messages.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not UTF-8, a line that is no JSON object, or no row at all.
    """
    text = read_text(path, argument=argument)
    # Not splitlines(): that also cuts at characters such as U+2028, which may stand inside a JSON string.
    lines = [(f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{argument} is '{path}', which is empty; expected one JSON object a line")
    return [(place, _object(place, line)) for place, line in lines]


def read_text(path: str | Path, *, argument: str) -> str:
    """A file's text; `argument` is the setting that named it. Raises FileNotFoundError, ValueError (not UTF-8)."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{argument} is '{path}', which is not a file")
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{argument} is '{path}', which is not UTF-8 text: {error}") from error


def _object(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}: not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{place}: expected a JSON object, got {line.strip()[:80]}")
    return row
