"""What trajectories are like, run by run: how many are right, their lengths, in which order tokens were revealed."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tad_ext.data.trajectories.files import Part, Trajectory
from tad_ext.data.trajectories.metadata import TrajectoryMetadata


@dataclass(frozen=True)
class Spread:
    """Of some numbers, at least one."""

    least: float
    median: float
    mean: float
    most: float

    @classmethod
    def of(cls, numbers: Collection[int]) -> "Spread | None":
        """None where there are none."""
        if not numbers:
            return None
        values = np.fromiter(numbers, dtype=np.int64)
        return cls(int(values.min()), float(np.median(values)), float(values.mean()), int(values.max()))


@dataclass(frozen=True)
class RunStatistics:
    """Of one run. Without ids of end-of-sequence tokens, what depends on them is None, as are spreads of nothing."""

    run: TrajectoryMetadata
    files: int
    bytes: int  #: of the files
    decoded: int | None  #: answers, kept or not; None where a file does not say what was left out
    kept: int  #: trajectories in the files
    right: int  #: of these, with a right answer
    problems: int  #: with answers that are known of: all decoded ones, or those that were kept
    answers_per_problem: Spread | None
    prompt_tokens: Spread | None
    teacher_prompt_tokens: Spread | None
    response_tokens: Spread | None  #: up to and including the first end-of-sequence token
    steps: Spread | None  #: forwards per trajectory
    states: int  #: each of them a training sample
    states_behind_eos: float | None  #: share of the states in which all up to the first end-of-sequence token is there
    positions_behind_eos: float | None  #: share of the canvases' positions behind it

    @property
    def acceptance(self) -> float | None:
        """Share of right answers among the decoded ones."""
        return self.right / self.decoded if self.decoded else None


def run_statistics(parts: Iterable[Part], eos_token_ids: Collection[int] = ()) -> list[RunStatistics]:
    """The statistics of every run that some files are of, in the order of their first ones."""
    runs: dict[TrajectoryMetadata, list[Part]] = {}
    for part in parts:
        runs.setdefault(part.metadata, []).append(part)
    return [_of_run(run, its_parts, eos_token_ids) for run, its_parts in runs.items()]


def _of_run(run: TrajectoryMetadata, parts: Sequence[Part], eos_token_ids: Collection[int]) -> RunStatistics:
    items = [item for part in parts for item in part.trajectories]
    answers = Counter(id for part in parts for id, _ in part.keys)
    states, positions = sum(item.num_steps for item in items), len(items) * run.gen_length
    lengths = [item.response_length(eos_token_ids) for item in items] if eos_token_ids else []
    useful = sum(int(item.reveal_step[:length].max()) for item, length in zip(items, lengths, strict=False))
    return RunStatistics(
        run=run,
        files=len(parts),
        bytes=sum(part.path.stat().st_size for part in parts),
        decoded=None if any(part.coverage is None for part in parts) else answers.total(),
        kept=len(items),
        right=sum(part.right for part in parts),
        problems=len(answers),
        answers_per_problem=Spread.of(answers.values()),
        prompt_tokens=Spread.of([len(item.prompt_ids) for item in items]),
        teacher_prompt_tokens=Spread.of([len(item.teacher_prompt_ids) for item in items]),
        response_tokens=Spread.of(lengths),
        steps=Spread.of([item.num_steps for item in items]),
        states=states,
        states_behind_eos=1 - useful / states if lengths else None,
        positions_behind_eos=1 - sum(lengths) / positions if lengths else None,
    )


def reveal_order(trajectories: Sequence[Trajectory], *, rows: int = 10, columns: int = 64) -> np.ndarray:
    """(rows, C) float64: when positions are revealed, in trajectories of one canvas size G; C = min(columns, G).

    Entry [r, c] is the share of the positions in bin c, of equal bins from the first position to the last, that is
    revealed by the forwards from r / rows to (r + 1) / rows of the way. The entries of a column add up to 1.
    """
    if not trajectories:
        raise ValueError("trajectories must hold at least one trajectory, got none")
    steps = np.stack([item.reveal_step for item in trajectories]).astype(np.int64)
    forwards = np.array([item.num_steps for item in trajectories])[:, None]
    size = steps.shape[1]
    columns = min(columns, size)
    row, column = (steps - 1) * rows // forwards, np.arange(size) * columns // size
    counts = np.bincount((row * columns + column).ravel(), minlength=rows * columns).reshape(rows, columns)
    return counts / counts.sum(axis=0)
