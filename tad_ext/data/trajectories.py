"""Trajectory files: how a teacher decoded each problem, stored as the final tokens and the forward that revealed each
of them.

A folder holds Parquet parts (zstd) of at most 256 records, ``part-<rank>-<seq>.parquet``, each written atomically.
Every intermediate state of the decoding follows from two columns, so none is stored: state s, the canvas after s
forwards (0 <= s < num_steps), is ``where(reveal_step <= s, token, MASK)``, and ``steps_to_reveal = reveal_step - s``.

How the records were made and which problems a part covers stands in each part's own metadata (`trajectory_metadata`).
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tad_ext.data.trajectory_metadata import MAX_PART_RECORDS, ProblemRange, TrajectoryMetadata, from_header, to_header
from tad_ext.files import atomic_path

_TOKENS = pa.list_(pa.field("element", pa.int32(), nullable=False))
_STEPS = pa.list_(pa.field("element", pa.int16(), nullable=False))

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
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
    """One file's contents. ``problems`` is None where the records did not come from a task's list (converted files)."""

    path: Path
    metadata: TrajectoryMetadata
    problems: ProblemRange | None
    trajectories: list[Trajectory]


def part_name(rank: int, seq: int) -> str:
    """The file name of rank ``rank``'s part number ``seq``."""
    if rank < 0 or seq < 0:
        raise ValueError(f"rank and seq must be >= 0, got {rank} and {seq}")
    return f"part-{rank:05d}-{seq:08d}.parquet"


def write_part(
    path: str | Path,
    metadata: TrajectoryMetadata,
    trajectories: Sequence[Trajectory],
    *,
    problems: ProblemRange | None = None,
) -> None:
    """Writes one part atomically: 0 to 256 records of different ids, whose task is the metadata's."""
    if len(trajectories) > MAX_PART_RECORDS:
        raise ValueError(f"trajectories must be at most {MAX_PART_RECORDS} per part, got {len(trajectories)}")
    right = sum(item.correct for item in trajectories)
    if problems is not None and problems.right != right:
        raise ValueError(f"problems.right must be the number of correct records ({right}), got {problems.right}")
    _check_records(metadata, trajectories)
    columns = {name: [getattr(item, name) for item in trajectories] for name in SCHEMA.names}
    table = pa.table(columns, schema=SCHEMA.with_metadata(to_header(metadata, problems)))
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
        metadata, problems = from_header(table.schema.metadata)
        if not table.schema.remove_metadata().equals(SCHEMA):
            raise ValueError(f"expected the columns {_columns(SCHEMA)}, got {_columns(table.schema)}")
        trajectories = [_from_record(index, record) for index, record in enumerate(table.to_pylist())]
        _check_records(metadata, trajectories)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Part(path, metadata, problems, trajectories)


def read_parts(folder: str | Path) -> list[Part]:
    """All parts of ``folder``, in the order of the problems they cover; an empty list if there is none yet.

    Raises ValueError, naming the files, if a part is not readable, if their metadata disagree, or if two of them cover
    the same problem or hold the same id.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"trajectories is {str(folder)!r}, expected a folder of trajectory files")
    parts = [read_part(path) for path in sorted(folder.glob("part-*.parquet"))]
    owner: dict[str, Path] = {}
    for part in parts:
        for name, first, other in parts[0].metadata.differences(part.metadata):
            raise ValueError(
                f"{part.path} does not belong with {parts[0].path.name}: its {name} is {other!r}, expected {first!r}"
            )
        for item in part.trajectories:
            if item.id in owner:
                raise ValueError(f"{part.path}: id {item.id!r} is also in {owner[item.id].name}, expected each id once")
            owner[item.id] = part.path
    parts.sort(key=lambda part: (part.problems.start if part.problems else 0, part.path.name))
    covering = [(part.path, part.problems) for part in parts if part.problems]
    for (path, earlier), (next_path, later) in itertools.pairwise(covering):
        if later.start < earlier.stop:
            raise ValueError(
                f"{next_path} covers the problems {later.start}..{later.stop - 1}, some of which {path.name} covers too"
            )
    return parts


def noted_model(folder: str | Path) -> str | None:
    """``model_revision`` of a folder's first part, from its header alone; None where there is none to be read."""
    first = min(Path(folder).glob("part-*.parquet"), default=None)
    try:
        return None if first is None else from_header(pq.read_schema(first).metadata)[0].model_revision
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return None  # `read_parts` says what is wrong with it


def read_trajectories(folder: str | Path) -> tuple[TrajectoryMetadata, list[Trajectory]]:
    """The metadata and all records of a folder in the problems' order. ValueError as `read_parts`, or for no parts."""
    parts = read_parts(folder)
    if not parts:
        raise ValueError(
            f"trajectories is {str(folder)!r}: expected trajectory files named part-<rank>-<seq>.parquet, found none"
        )
    return parts[0].metadata, [item for part in parts for item in part.trajectories]


def _integers(name: str, values: Iterable[int], dtype: type[np.integer], *, least: int) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise TypeError(f"{name} must be a flat sequence of integers, got {array.dtype} of shape {array.shape}")
    most = np.iinfo(dtype).max
    if array.size and not (least <= array.min() and array.max() <= most):
        raise ValueError(f"{name} must lie in {least}..{most}, got {array.min()}..{array.max()}")
    return array.astype(dtype)  # always a copy


def _check_records(metadata: TrajectoryMetadata, trajectories: Sequence[Trajectory]) -> None:
    seen: set[str] = set()
    for item in trajectories:
        if item.task != metadata.task:
            raise ValueError(f"record {item.id!r}: task must be the file's ({metadata.task!r}), got {item.task!r}")
        if len(item.response_ids) != metadata.gen_length:
            raise ValueError(
                f"record {item.id!r}: expected {metadata.gen_length} response_ids, got {len(item.response_ids)}"
            )
        if item.id in seen:
            raise ValueError(f"record {item.id!r}: expected each id once")
        seen.add(item.id)


def _from_record(index: int, record: dict[str, Any]) -> Trajectory:
    try:
        return Trajectory(**record)
    except (ValueError, TypeError) as error:
        raise ValueError(f"record {index}: {error}") from error


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{item.name}: {item.type}" for item in schema)
