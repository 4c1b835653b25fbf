"""What is done and not yet in its last place: a line of JSON for each piece, so that a kill loses none of them."""

import contextlib
import json
import threading
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tad_ext.files import add_json_line

Heading = TypeVar("Heading")
Row = TypeVar("Row")


class Journal:
    """The rows that this process has made, in a file that comes with the first one. Any thread may add to it.

    Args:
        folder: where the file is.
        heading: says what the rows are of; its first line.
    """

    def __init__(self, folder: Path, heading: Mapping[str, Any]) -> None:
        self.path, self.heading = folder / f".rows-{uuid.uuid4().hex[:8]}.jsonl", heading
        self._lock = threading.Lock()

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes a row down; when this returns, it outlives the process."""
        with self._lock:
            begins = [] if self.path.exists() else [self.heading]
            add_json_line(self.path, *begins, row)


def read_journals(
    folder: Path,
    heading: Callable[[Any], Heading],
    row: Callable[..., Row],
    *,
    of: str,
    wanted: Callable[[Path], bool] = lambda _: True,
) -> list[tuple[Path, Heading, list[Row]]]:
    """All journals of a folder, or those that are `wanted`, each with what `heading` makes of its first line and `row`
    of the fields of the others.

    A row that a kill, or a crash of the machine, has damaged is left out: one that is not JSON, or of which `row` makes
    nothing but a ValueError or a TypeError. One of these by `heading` is a ValueError that names the file and says that
    what `of` ("a collection") has written down was expected.
    """
    found = []
    for path in filter(wanted, _files(folder)):
        first, *lines = _lines(path)
        if not lines:
            continue
        try:
            beginning = heading(json.loads(first))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: expected what {of} has written down, {error}") from error
        rows = []
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                rows.append(row(**json.loads(line)))
        found.append((path, beginning, rows))
    return found


def unbegun_journals(folder: Path) -> list[Path]:
    """Those of which not even the first line is there: a kill has left them, or a process is about to write."""
    return [path for path in _files(folder) if len(_lines(path)) == 1]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob(".rows-*.jsonl"))


def _lines(path: Path) -> list[bytes]:
    """What ends with a line's end, and what stands behind the last one; of a file that is gone, that alone."""
    try:
        return path.read_bytes().split(b"\n")  # alone: whatever else ends a line in Python may stand in an answer
    except FileNotFoundError:
        return [b""]
