"""`tad select`: some trajectories of one or several folders, as a new folder, or as two for training and holdout."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tad_ext.data.jsonl import read_lines
from tad_ext.data.trajectories.files import Part, read_folders
from tad_ext.data.trajectories.selection import (
    Chosen,
    Wanted,
    chosen_from,
    drawn,
    first_samples,
    held_out,
    shuffled,
    write_chosen,
)
from tad_ext.files import atomic_folder, tried_folder
from tad_ext.jobs.select.config import SelectConfig

TRAIN, HOLDOUT = "train", "holdout"


def select(config: SelectConfig) -> None:
    """Writes the chosen trajectories, complete or not at all, and prints how many there are.

    Raises ValueError as `read_folders`, for an output that cannot be written to, for ids, tasks and filters that leave
    nothing; FileExistsError for an output that holds files, FileNotFoundError for no file of ids.
    """
    tried_folder(config.output, empty=True)
    parts = read_folders(*config.trajectories)
    items = chosen_from(parts, _wanted(config, parts))
    if config.samples is not None:
        items = first_samples(items, config.samples)
    if config.limit is not None:
        items = drawn(items, config.limit, seed=config.seed)
    if config.shuffle:
        items = shuffled(items, seed=config.seed)
    if not items:
        total = sum(len(part.trajectories) for part in parts)
        raise ValueError(f"trajectories hold {total} trajectories, of which none is as the options ask")
    if config.holdout is None:
        pieces = {"": items}
    else:
        train, holdout = held_out(items, config.holdout, seed=config.seed)
        pieces = {TRAIN: train, HOLDOUT: holdout}
    with atomic_folder(config.output) as folder:
        for name, some in pieces.items():
            (folder / name).mkdir(exist_ok=True)
            write_chosen(folder / name, some, parts)
    for name, some in pieces.items():
        print(f"{Path(config.output, name)}: {_counts(some, parts)}")


def _wanted(config: SelectConfig, parts: Sequence[Part]) -> Wanted:
    tasks = dict.fromkeys(part.metadata.task for part in parts)
    for task in config.task:
        if task not in tasks:
            raise ValueError(f"task is {task!r}, expected one that trajectories are of: {', '.join(tasks)}")
    ids = None
    if config.ids is not None:
        ids = {line.strip() for _, line in read_lines(config.ids, argument="ids")}
    ends: Sequence[int] = ()
    if config.model is not None:
        from tad_ext.models.loading import load_config  # here, because the models' libraries take seconds to import

        ends = load_config(config.model).eos_token_ids or ()
    return Wanted(
        correct=config.correct,
        tasks=config.task,
        min_length=config.min_length,
        max_length=config.max_length,
        max_steps=config.max_steps,
        ids=ids,
        eos_token_ids=ends,
    )


def _counts(items: Sequence[Chosen], parts: Sequence[Part]) -> str:
    kept, there = Counter(item.run.task for item in items), Counter[str]()
    for part in parts:
        there[part.metadata.task] += len(part.trajectories)
    of_tasks = ", ".join(f"{kept[task]} of {number} of {task}" for task, number in there.items())
    problems, runs = len({item.problem for item in items}), len({item.run for item in items})
    return f"{len(items)} trajectories of {problems} problems and {runs} runs ({of_tasks})"
