"""Trajectory files: how a teacher decoded each problem, stored as the final tokens and the forward that revealed each
of them.

A folder holds Parquet parts (zstd) of at most 256 records, ``part-<number>-<digest>.parquet``, each written atomically.
Every intermediate state of the decoding follows from two columns, so none is stored: state s, the canvas after s
forwards (0 <= s < num_steps), is ``where(reveal_step <= s, token, MASK)``, and ``steps_to_reveal = reveal_step - s``.

How a part's records were made, and what else was decoded for it, stands in its own metadata (`trajectory_metadata`). So
a folder may hold trajectories of several tasks and settings, as training sets do.
"""

import hashlib
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tad_ext.data.trajectories.metadata import (
    MAX_PART_RECORDS,
    Coverage,
    Key,
    TrajectoryMetadata,
    from_header,
    to_header,
)
from tad_ext.files import atomic_path

MAX_SAMPLE = 2**15 - 1
_TOKENS = pa.list_(pa.field("element", pa.int32(), nullable=False))
_STEPS = pa.list_(pa.field("element", pa.int16(), nullable=False))

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("sample", pa.int16(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("prompt_ids", _TOKENS, nullable=False),
        pa.field("teacher_prompt_ids", _TOKENS, nullable=False),
        pa.field("response_ids", _TOKENS, nullable=False),
        pa.field("reveal_step", _STEPS, nullable=False),
        pa.field("num_steps", pa.int32(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("answer", pa.string(), nullable=True),
        pa.field("reference", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One decoded problem. Token lists may be given as any integer sequence and are held as numpy arrays.

    Arrays, because tens of thousands of Python lists cost nine times the memory and are copied into every DataLoader
    worker. Raises ValueError/TypeError naming the field if the lengths or values do not fit together.
    """

    id: str  #: the problem's id within the task
    sample: int  #: which of the answers to this problem, from 0
    task: str  #: the task's name
    prompt_ids: np.ndarray  #: (P,) int32: what the student sees before the response
    teacher_prompt_ids: np.ndarray  #: (Q,) int32: what the teacher saw: the prompt and the privileged reference
    response_ids: np.ndarray  #: (G,) int32: the finished canvas, EOS and what follows it included
    reveal_step: np.ndarray  #: (G,) int16: the 1-based forward that revealed each position
    num_steps: int  #: forwards until the canvas was finished
    correct: bool  #: the task's verifier accepted the response
    answer: str | None  #: the answer the verifier found in the response
    reference: str  #: the reference solution that the teacher was given

    def __post_init__(self) -> None:
        for name in ("prompt_ids", "teacher_prompt_ids", "response_ids"):
            object.__setattr__(self, name, _integers(name, getattr(self, name), np.int32, least=0))
        object.__setattr__(self, "reveal_step", _integers("reveal_step", self.reveal_step, np.int16, least=1))
        if not self.id:
            raise ValueError("id must be a non-empty string")
        if not 0 <= self.sample <= MAX_SAMPLE:
            raise ValueError(f"sample must lie in 0..{MAX_SAMPLE}, got {self.sample}")
        if len(self.response_ids) == 0:
            raise ValueError("response_ids must hold at least one token")
        if len(self.reveal_step) != len(self.response_ids):
            raise ValueError(
                f"reveal_step must have one entry per token of response_ids ({len(self.response_ids)}), "
                f"got {len(self.reveal_step)}"
            )
        latest = int(self.reveal_step.max())
        if latest > self.num_steps:
            raise ValueError(f"reveal_step must lie in 1..num_steps = {self.num_steps}, got {latest}")

    @property
    def key(self) -> Key:
        """What tells it apart from others of its run."""
        return self.id, self.sample

    def response_length(self, eos_token_ids: Collection[int]) -> int:
        """Tokens up to and including the first end-of-sequence token; all of them if there is none."""
        ends = np.flatnonzero(np.isin(self.response_ids, list(eos_token_ids)))
        return int(ends[0]) + 1 if ends.size else len(self.response_ids)

    def canvas_at(self, step: int, mask_token_id: int) -> np.ndarray:
        """The canvas after ``step`` < num_steps forwards, (G,) int64: revealed tokens, ``mask_token_id`` elsewhere."""
        return np.where(self.steps_to_reveal(step) <= 0, self.response_ids, mask_token_id).astype(np.int64)

    def steps_to_reveal(self, step: int) -> np.ndarray:
        """Forwards from state ``step`` until each position is revealed, (G,) int64; <= 0 where it already is."""
        if not 0 <= step < self.num_steps:
            raise ValueError(f"step must lie in 0..{self.num_steps - 1} (num_steps - 1), got {step}")
        return self.reveal_step.astype(np.int64) - step

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trajectory):
            return NotImplemented
        pairs = ((getattr(self, name), getattr(other, name)) for name in SCHEMA.names)
        return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)


@dataclass(frozen=True)
class Part:
    """One file's contents. ``coverage`` is None where the records did not come from a task's list (converted files)."""

    path: Path
    metadata: TrajectoryMetadata
    coverage: Coverage | None
    trajectories: list[Trajectory]

    @property
    def keys(self) -> list[Key]:
        """Of everything that was decoded for it, kept or not."""
        return [item.key for item in self.trajectories] + list(self.coverage.wrong if self.coverage else ())

    @property
    def right(self) -> int:
        """How many of them have a right answer."""
        return sum(item.correct for item in self.trajectories)


def part_name(number: int, keys: Iterable[Key]) -> str:
    """The file name of the part that stands at this place in its folder and holds these trajectories."""
    if number < 0:
        raise ValueError(f"number must be >= 0, got {number}")
    digest = hashlib.sha256(json.dumps(sorted(keys)).encode()).hexdigest()[:8]
    return f"part-{number:08d}-{digest}.parquet"


def write_part(
    path: str | Path,
    metadata: TrajectoryMetadata,
    trajectories: Sequence[Trajectory],
    *,
    coverage: Coverage | None = None,
) -> None:
    """Writes one part atomically: 0 to 256 records of different keys, whose task is the metadata's."""
    if len(trajectories) > MAX_PART_RECORDS:
        raise ValueError(f"trajectories must be at most {MAX_PART_RECORDS} per part, got {len(trajectories)}")
    _check_records(metadata, trajectories, coverage)
    columns = {name: [getattr(item, name) for item in trajectories] for name in SCHEMA.names}
    table = pa.table(columns, schema=SCHEMA.with_metadata(to_header(metadata, coverage)))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_part(path: str | Path) -> Part:
    """Reads and checks one part. ValueError, naming it, if it is truncated, damaged, foreign or of another version."""
    path = Path(path)
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        message = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: expected a complete Parquet file, but it cannot be read ({message})") from error
    try:
        metadata, coverage = from_header(table.schema.metadata)
        if not table.schema.remove_metadata().equals(SCHEMA):
            raise ValueError(f"expected the columns {_columns(SCHEMA)}, got {_columns(table.schema)}")
        trajectories = [_from_record(index, record) for index, record in enumerate(_rows(table))]
        _check_records(metadata, trajectories, coverage)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Part(path, metadata, coverage, trajectories)


def part_files(folder: str | Path) -> list[Path]:
    """The parts of a folder, in the order of their names. ValueError if there is no such folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"trajectories is {str(folder)!r}, expected a folder of trajectory files")
    return sorted(folder.glob("part-*.parquet"))


def read_parts(folder: str | Path) -> list[Part]:
    """All parts of ``folder``, in the order of their names; an empty list if there is none yet.

    Raises ValueError, naming the files, if a part is not readable, or if two of them hold the same trajectory of a run.
    """
    parts = [read_part(path) for path in part_files(folder)]
    for path, fault in repeats(parts):
        raise ValueError(f"{path} {fault}")
    return parts


def read_folders(*folders: str | Path) -> list[Part]:
    """All parts of some folders, in the order of the files.

    Their runs may be of several tasks and settings, but of one mask id and tokenizer: what their ids mean. Raises
    ValueError, naming the files, if they are not; for a folder without parts; and as `read_parts` of all together.
    """
    parts: list[Part] = []
    for folder in folders:
        found = part_files(folder)
        if not found:
            raise ValueError(
                f"trajectories is {str(folder)!r}: expected trajectory files named part-*.parquet, found none"
            )
        parts += map(read_part, found)
    if not parts:
        raise ValueError("trajectories is empty, expected at least one folder of trajectory files")
    for path, fault in (*repeats(parts), *mixtures(parts)):
        raise ValueError(f"{path} {fault}")
    return parts


def repeats(parts: Iterable[Part]) -> Iterator[tuple[Path, str]]:
    """Each file that holds a trajectory which an earlier one holds, too, and which it is."""
    owners: dict[TrajectoryMetadata, dict[Key, Path]] = {}
    for part in parts:
        owner = owners.setdefault(part.metadata, {})
        for key in part.keys:
            other = owner.setdefault(key, part.path)
            if other is not part.path:
                id, sample = key
                where = other.name if other.parent == part.path.parent and other != part.path else other
                yield part.path, f"holds sample {sample} of problem {id!r}, and so does {where}; expected it once"


def mixtures(parts: Sequence[Part]) -> Iterator[tuple[Path, str]]:
    """Each file whose ids mean something else than those of the first one, and why."""
    for part in parts[1:]:
        for name in ("mask_token_id", "tokenizer_hash"):
            expected, noted = getattr(parts[0].metadata, name), getattr(part.metadata, name)
            if noted != expected:
                first = parts[0].path
                yield part.path, f"does not belong with {first}: its {name} is {noted!r}, expected {expected!r}"


def noted_model(folder: str | Path) -> str | None:
    """``model_revision`` of a folder's first part, from its header alone; None where there is none to be read."""
    first = min(Path(folder).glob("part-*.parquet"), default=None)
    try:
        return None if first is None else from_header(pq.read_schema(first).metadata)[0].model_revision
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return None  # `read_parts` says what is wrong with it


def read_trajectories(*folders: str | Path) -> tuple[list[TrajectoryMetadata], list[Trajectory]]:
    """All records of some folders, and how they were made: each run's metadata once. Errors as `read_folders`."""
    parts = read_folders(*folders)
    runs = list(dict.fromkeys(part.metadata for part in parts))
    return runs, [item for part in parts for item in part.trajectories]


def _integers(name: str, values: Iterable[int], dtype: type[np.integer], *, least: int) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise TypeError(f"{name} must be a flat sequence of integers, got {array.dtype} of shape {array.shape}")
    most = np.iinfo(dtype).max
    if array.size and not (least <= array.min() and array.max() <= most):
        raise ValueError(f"{name} must lie in {least}..{most}, got {array.min()}..{array.max()}")
    return array.astype(dtype)  # always a copy


def _check_records(metadata: TrajectoryMetadata, trajectories: Sequence[Trajectory], coverage: Coverage | None) -> None:
    seen = set(coverage.wrong if coverage else ())
    for item in trajectories:
        if item.task != metadata.task:
            raise ValueError(f"record {item.id!r}: task must be the file's ({metadata.task!r}), got {item.task!r}")
        if len(item.response_ids) != metadata.gen_length:
            raise ValueError(
                f"record {item.id!r}: expected {metadata.gen_length} response_ids, got {len(item.response_ids)}"
            )
        if item.key in seen:
            raise ValueError(f"record {item.id!r}: expected sample {item.sample} once")
        seen.add(item.key)


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The records, whose lists are arrays: tens of thousands of Python's lists would take seconds."""
    columns = []
    for name in SCHEMA.names:
        column = table.column(name).combine_chunks()
        if pa.types.is_list(column.type):
            values = column.values.to_numpy(zero_copy_only=False)
            columns.append([values[first:last] for first, last in itertools.pairwise(column.offsets.to_pylist())])
        else:
            columns.append(column.to_pylist())
    return (dict(zip(SCHEMA.names, row, strict=True)) for row in zip(*columns, strict=True))


def _from_record(index: int, record: dict[str, Any]) -> Trajectory:
    try:
        return Trajectory(**record)
    except (ValueError, TypeError) as error:
        raise ValueError(f"record {index}: {error}") from error


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{item.name}: {item.type}" for item in schema)
