"""What is decoded and not yet in a part: a line of JSON for each trajectory, so that a kill loses none of them."""

import dataclasses
import json
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
    """The rows that this process has decoded. Its file comes with the first one, and goes when all are in parts."""

    def __init__(self, folder: Path, metadata: TrajectoryMetadata) -> None:
        self.path, self.metadata = folder / f".rows-{uuid.uuid4().hex[:8]}.jsonl", metadata

    def add(self, row: Row) -> None:
        """Writes a row down; when this returns, it outlives the process."""
        if not self.path.exists():
            add_json_line(self.path, dataclasses.asdict(self.metadata))
        add_json_line(self.path, dataclasses.asdict(row))


def read_journals(folder: Path) -> list[tuple[Path, TrajectoryMetadata, list[Row]]]:
    """All journals of a folder, as far as they were written. ValueError, naming the file, for one of another form."""
    found = []
    for path in sorted(folder.glob(".rows-*.jsonl")):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        except FileNotFoundError:
            continue
        whole = [line for line in lines if line.endswith("\n")]  # a kill may cut the last one short
        try:
            values = [json.loads(line) for line in whole]
            if values:
                found.append((path, metadata_from_json(values[0]), [Row(**row) for row in values[1:]]))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: expected rows of a collection, {error}") from error
    return found


def remove_finished(folder: Path, covered: Container[Key]) -> None:
    """Removes the journals all of whose rows are in parts."""
    for path, _, rows in read_journals(folder):
        if all(row.key in covered for row in rows):
            path.unlink(missing_ok=True)
