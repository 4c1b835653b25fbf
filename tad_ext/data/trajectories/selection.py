"""Choosing among trajectories, and writing the chosen ones: by what they are like, by chance, and problem by problem.

Chance is a hash of the seed and of a trajectory's or problem's name: the same ones are drawn whatever order the files
are in, and of a smaller number those that a larger one has, too.
"""

import dataclasses
import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tad_ext.data.trajectories.files import Part, Trajectory, part_name, write_part
from tad_ext.data.trajectories.metadata import MAX_PART_RECORDS, TrajectoryMetadata


@dataclass(frozen=True)
class Wanted:
    """What trajectories are to be like. What is None or empty asks for nothing."""

    correct: bool = False  #: right answers alone
    tasks: Collection[str] = ()
    min_length: int | None = None  #: tokens of the response, up to and including the first end-of-sequence token
    max_length: int | None = None
    max_steps: int | None = None
    ids: Container[str] | None = None
    eos_token_ids: Collection[int] = ()  #: for the lengths

    def __call__(self, item: Trajectory) -> bool:
        """Whether a trajectory is."""
        return (
            (item.correct or not self.correct)
            and (not self.tasks or item.task in self.tasks)
            and (self.max_steps is None or item.num_steps <= self.max_steps)
            and (self.ids is None or item.id in self.ids)
            and self._is_long_enough(item)
        )

    def _is_long_enough(self, item: Trajectory) -> bool:
        if self.min_length is None and self.max_length is None:
            return True
        length = item.response_length(self.eos_token_ids)
        return (self.min_length or 0) <= length <= (length if self.max_length is None else self.max_length)


@dataclass(frozen=True)
class Chosen:
    """A trajectory, and the run that it is of."""

    run: TrajectoryMetadata
    trajectory: Trajectory

    @property
    def problem(self) -> tuple[str, str]:
        """What it answers: the task, and the problem's id in it."""
        return self.trajectory.task, self.trajectory.id


def chosen_from(parts: Iterable[Part], wanted: Callable[[Trajectory], bool]) -> list[Chosen]:
    """The wanted trajectories of some files, in their order."""
    return [Chosen(part.metadata, item) for part in parts for item in part.trajectories if wanted(item)]


def first_samples(items: Iterable[Chosen], samples: int) -> list[Chosen]:
    """Of each problem the first so many, by run and sample, in the order that they are in."""
    items = list(items)
    run_number = {run: number for number, run in enumerate(dict.fromkeys(item.run for item in items))}
    by_problem: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        by_problem[item.problem].append(place)
    kept = set()
    for places in by_problem.values():
        places.sort(key=lambda place: (run_number[items[place].run], items[place].trajectory.sample))
        kept.update(places[:samples])
    return [item for place, item in enumerate(items) if place in kept]


def drawn(items: Iterable[Chosen], number: int, *, seed: int) -> list[Chosen]:
    """So many of them by chance, in the order that they are in; all where there are no more."""
    items = list(items)
    places = sorted(range(len(items)), key=lambda place: _chance(seed, *_name(items[place])))[:number]
    return [items[place] for place in sorted(places)]


def shuffled(items: Iterable[Chosen], *, seed: int) -> list[Chosen]:
    """In a random order."""
    return sorted(items, key=lambda item: _chance(seed, *_name(item)))


def held_out(items: Iterable[Chosen], share: float, *, seed: int) -> tuple[list[Chosen], list[Chosen]]:
    """The trajectories in two, of which the second has this share of the problems: all answers to one are on one side.

    Each side has one problem at least. ValueError where there are less than two.
    """
    items = list(items)
    problems = sorted({item.problem for item in items}, key=lambda problem: _chance(seed, *problem))
    if len(problems) < 2:
        raise ValueError(f"holdout is {share}: expected trajectories of at least 2 problems, got {len(problems)}")
    aside = set(problems[: min(max(round(share * len(problems)), 1), len(problems) - 1)])
    return [item for item in items if item.problem not in aside], [item for item in items if item.problem in aside]


def write_chosen(folder: Path, items: Sequence[Chosen], parts: Sequence[Part] = ()) -> int:
    """Writes trajectories as the parts of a folder, a run's in parts of their own; how many parts.

    A run that is there as it was in `parts`, nothing left out and nothing moved, is written as these parts, with what
    they say of wrong answers, so that its collection can go on. Otherwise a part says nothing but its records.
    """
    by_run: dict[TrajectoryMetadata, list[Trajectory]] = defaultdict(list)
    for item in items:
        by_run[item.run].append(item.trajectory)
    whole: dict[TrajectoryMetadata, list[Part]] = defaultdict(list)
    for part in parts:
        whole[part.metadata].append(part)
    number = 0
    for run, mine in by_run.items():
        before = [one for part in whole[run] for one in part.trajectories]
        if len(mine) == len(before) and all(one is other for one, other in zip(mine, before, strict=True)):
            pieces = [(part.trajectories, part.coverage) for part in whole[run]]
        else:
            starts = range(0, len(mine), MAX_PART_RECORDS)
            pieces = [(mine[start : start + MAX_PART_RECORDS], None) for start in starts]
        for records, coverage in pieces:
            keys = [one.key for one in records] + list(coverage.wrong if coverage else ())
            write_part(folder / part_name(number, keys), run, records, coverage=coverage)
            number += 1
    return number


def _name(item: Chosen) -> tuple[str, str, int]:
    """What tells it apart from all others."""
    return _digest(item.run), *item.trajectory.key


@functools.cache
def _digest(run: TrajectoryMetadata) -> str:
    # By whatever model's name: it is the same run; and without what earlier versions did not know, where it is as then.
    later = {field.name: field.default for field in dataclasses.fields(run)}
    said = {name: value for name, value in dataclasses.asdict(run).items() if value != later[name]} | {"model": ""}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _chance(seed: int, *name: str | int) -> bytes:
    return hashlib.sha256(json.dumps([seed, *name]).encode()).digest()
