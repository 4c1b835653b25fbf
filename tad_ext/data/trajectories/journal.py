"""What is decoded and not yet in a part: a journal of trajectories."""

import dataclasses
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from tad_ext.data.trajectories.metadata import Key, TrajectoryMetadata, metadata_from_json
from tad_ext.sharing import journal


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
    """The rows that this process has decoded. Any thread may add to it."""

    def __init__(self, folder: Path, metadata: TrajectoryMetadata) -> None:
        self._journal = journal.Journal(folder, dataclasses.asdict(metadata))

    @property
    def path(self) -> Path:
        """Of its file."""
        return self._journal.path

    def add(self, row: Row) -> None:
        """Writes a row down; when this returns, it outlives the process."""
        self._journal.add(dataclasses.asdict(row))


def read_journals(folder: Path) -> list[tuple[Path, TrajectoryMetadata, list[Row]]]:
    """All journals of a folder. Damaged rows are left out; ValueError, naming the file, for one that is no journal."""
    return journal.read_journals(folder, metadata_from_json, Row, of="a collection")


def remove_finished(folder: Path, covered: Container[Key]) -> None:
    """Removes the journals all of whose rows are in parts, and those without any."""
    finished = [path for path, _, rows in read_journals(folder) if all(row.key in covered for row in rows)]
    for path in (*finished, *journal.unbegun_journals(folder)):
        path.unlink(missing_ok=True)
