"""What is decoded and not yet in a part: a line of JSON for each trajectory, so that a kill loses none of them."""

import contextlib
import dataclasses
import json
import threading
import uuid
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from tad_ext.data.trajectories.metadata import Key, TrajectoryMetadata, metadata_from_json
from tad_ext.files import add_json_line

CLAIM = ".claim-"  # how the name of a file begins that says: a process works on this piece of the collection


@dataclass(frozen=True)
class Row:
    """A decoded response and what the task says of it."""

    id: str
    sample: int
    digest: str  #: of what it was decoded from
    response_ids: list[int]
    reveal_step: list[int]
    num_steps: int
    correct: bool
    answer: str | None

    @property
    def key(self) -> Key:
        """Of its trajectory."""
        return self.id, self.sample


class Journal:
    """The rows that this process has decoded, in a file that comes with the first one. Any thread may add to it."""

    def __init__(self, folder: Path, metadata: TrajectoryMetadata) -> None:
        self.path, self.metadata = folder / f".rows-{uuid.uuid4().hex[:8]}.jsonl", metadata
        self._lock = threading.Lock()

    def add(self, row: Row) -> None:
        """Writes a row down; when this returns, it outlives the process."""
        with self._lock:
            begins = [] if self.path.exists() else [dataclasses.asdict(self.metadata)]
            add_json_line(self.path, *begins, dataclasses.asdict(row))


def read_journals(folder: Path) -> list[tuple[Path, TrajectoryMetadata, list[Row]]]:
    """All journals of a folder. A row that a kill, or a crash of the machine, has damaged is left out.

    ValueError, naming the file, for one that does not begin as a journal.
    """
    found = []
    for path in sorted(folder.glob(".rows-*.jsonl")):
        try:
            # Lines end at \n alone: whatever else ends a line in Python may stand in an answer.
            first, *lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            continue
        if not lines:
            continue  # not even the beginning was written
        try:
            metadata = metadata_from_json(json.loads(first))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: expected what a collection has written down, {error}") from error
        rows = []
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                rows.append(Row(**json.loads(line)))
        found.append((path, metadata, rows))
    return found


def remove_finished(folder: Path, covered: Container[Key]) -> None:
    """Removes the journals all of whose rows are in parts."""
    for path, _, rows in read_journals(folder):
        if all(row.key in covered for row in rows):
            path.unlink(missing_ok=True)
