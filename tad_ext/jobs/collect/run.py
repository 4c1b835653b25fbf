"""`tad collect`: the teacher decodes each problem one token per forward, and right answers are kept (or all).

The teacher is the model itself, given a privileged prompt: the question together with its reference solution. What it
reveals, and in which order, the student later learns to do from the plain prompt in fewer forwards (arXiv 2605.09536).

The work is cut into units of neighbouring problems, each one part file. Processes claim units (`tad_ext.sharing`), and
write each answer down as it comes, so a kill loses what was half decoded and nothing else. Every answer has
random numbers of its own, wherever it stands and whoever decodes it: what a folder holds in the end is the same.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from tad_ext.data.tasks.judging import judged
from tad_ext.data.trajectories.files import Part, Trajectory, part_name, read_part, read_parts, write_part
from tad_ext.data.trajectories.journal import Journal, Row, read_journals, remove_finished
from tad_ext.data.trajectories.metadata import Coverage, Key
from tad_ext.decoding.loop import decode_stream
from tad_ext.decoding.result import DecodedSequence
from tad_ext.files import remove_leftovers
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.jobs.collect.plan import CollectionPlan
from tad_ext.models.loading import load_model
from tad_ext.sharing.work import WAIT, Unit, work_together

MOST_UNITS = 4  # that a process has at a time: among so many problems prompts of like length are found for a batch


@dataclass(frozen=True)
class CollectSummary:
    """What the folder holds of this run's problems when this process has finished."""

    decoded: int  #: answers so far, of `total`
    total: int  #: answers of the whole collection
    kept: int  #: trajectories written: those with a right answer, or all
    accuracy: float  #: of the teacher: right answers / decoded
    mean_steps: float  #: forwards per kept trajectory
    seconds: float  #: of this call

    def __str__(self) -> str:
        return (
            f"{self.decoded} of {self.total} answers decoded: {self.kept} trajectories kept (teacher accuracy "
            f"{100 * self.accuracy:.1f} %), {self.mean_steps:.1f} forwards each; this run took {self.seconds:.1f} s"
        )


def collect(config: CollectConfig) -> CollectSummary:
    """Decodes the privileged prompt of each problem; writes trajectories to ``config.output``.

    Everything is checked before the model is loaded. Processes that share the folder share the work, under torchrun or
    accelerate (RANK, WORLD_SIZE) or started one by one; rank 0 shows progress and prints the summary.

    Raises ValueError, TypeError naming the setting, its value and what was expected, or a file in the folder that is
    damaged or of other settings or problems; FileNotFoundError for no such problem file.
    """
    started = time.perf_counter()
    # 1. What is to be done, and what is done already.
    plan = CollectionPlan.make(config)
    shown = plan.place.is_first
    done = Done(plan)
    if done.keys and shown:
        print(f"continuing in {plan.output}: {len(done.keys)} answers are there already")

    # 2. The rest, as far as no other process works on it.
    model: Any = None
    left, tally = len(plan.attempts.keys() - done.keys), Tally()
    with tqdm(total=left, desc="collecting", unit="answer", disable=not shown) as bar:

        def work(taken: Sequence[Unit[Key]]) -> None:
            nonlocal model
            for unit in taken:  # of who had it before
                remove_leftovers(plan.output, f"part-{unit.start:08d}-*.parquet")
            bar.update(done.look_again())  # what others have finished before they gave it back
            model = model or load_model(config.model, dtype=config.dtype, device=plan.device)
            for unit, rows in _decoded(plan, model, {unit: done.open_keys(unit) for unit in taken}, bar, tally):
                done.look_again()
                if done.open_keys(unit):  # else who had it before was taken for gone, and was not
                    done.add(_write(plan, unit, rows))

        def open_units() -> list[Unit[Key]]:
            bar.update(done.look_again())
            return done.open_units()

        work_together(plan.output, plan.work, open_units, work, place=plan.place, most=MOST_UNITS, wait=WAIT)

    # 3. What the folder holds now.
    remove_finished(plan.output, done.keys)
    summary = _summary(plan, time.perf_counter() - started)
    if shown:
        print(summary)
    return summary


@dataclass
class Tally:
    """What this process has judged."""

    right: int = 0
    judged: int = 0


class Done:
    """What a folder's parts hold. ValueError, naming the file, for parts and journals of another run."""

    def __init__(self, plan: CollectionPlan) -> None:
        self.plan = plan
        self.keys: set[Key] = set()
        self._files: set[str] = set()
        self._units = plan.units()
        self.look_again()
        for path, metadata, _ in read_journals(plan.output):
            plan.check_metadata(path, metadata)

    def look_again(self) -> int:
        """Reads the parts that have come since; how many of this run's answers they hold."""
        before = len(self.keys & self.plan.attempts.keys())
        for path in sorted(self.plan.output.glob("part-*.parquet")):
            if path.name not in self._files:
                self.add(read_part(path))
        return len(self.keys & self.plan.attempts.keys()) - before

    def add(self, part: Part) -> None:
        """Counts a part's answers."""
        self.plan.check(part)
        for id, sample in part.keys:
            if (id, sample) in self.keys:
                raise ValueError(
                    f"output: {part.path} holds sample {sample} of problem {id!r}, which another part holds"
                )
        self.keys.update(part.keys)
        self._files.add(part.path.name)

    def open_keys(self, unit: Unit[Key]) -> list[Key]:
        """What of a unit is not done."""
        return [key for key in unit.keys if key not in self.keys]

    def open_units(self) -> list[Unit[Key]]:
        """The units of which something is not done."""
        return [unit for unit in self._units if self.open_keys(unit)]


def _decoded(
    plan: CollectionPlan, model: Any, wanted: dict[Unit[Key], list[Key]], bar: tqdm, tally: Tally
) -> Iterator[tuple[Unit[Key], list[Row]]]:
    """Each unit with the rows that were wanted of it, as soon as there are all."""
    unit_of = {key: unit for unit, keys in wanted.items() for key in keys}
    rows = {
        row.key: row
        for *_, written in read_journals(plan.output)
        for row in written
        if row.key in unit_of and row.digest == plan.digest([row.key])
    }
    missing = [key for key in unit_of if key not in rows]
    bar.update(len(rows))
    to_come = _judged(plan, model, missing, progress=not bar.disable) if missing else iter(())
    open_units = dict(wanted)
    while open_units:
        for unit, keys in list(open_units.items()):
            if all(key in rows for key in keys):
                del open_units[unit]
                if keys:
                    yield unit, [rows[key] for key in keys]
        if open_units:
            row = next(to_come)
            rows[row.key] = row
            tally.judged, tally.right = tally.judged + 1, tally.right + row.correct
            bar.set_postfix_str(f"accuracy {100 * tally.right / tally.judged:.1f} %", refresh=False)
            bar.update()


def _judged(plan: CollectionPlan, model: Any, keys: Sequence[Key], *, progress: bool) -> Iterator[Row]:
    """The teacher's answers with the task's judgement, in the order of their end.

    They are judged, and written down, while others are decoded.
    """
    key_of = {plan.stream(key): key for key in keys}
    prompts = [plan.attempts[key].teacher_prompt_ids for key in keys]
    stream = decode_stream(model, prompts, plan.decoding, numbers=list(key_of), progress=progress)
    texts = ((one, plan.tokenizer.decode(one.response(), skip_special_tokens=True)) for one in stream)
    journal = Journal(plan.output, plan.metadata)

    def judge(response: tuple[DecodedSequence, str]) -> Row:
        sequence, text = response
        key = key_of[sequence.number]
        row = Row(
            *key,
            digest=plan.digest([key]),
            response_ids=sequence.canvas,
            reveal_step=sequence.reveal_step,
            num_steps=max(sequence.reveal_step),  # a whole block's last forwards may reveal nothing of the canvas
            correct=plan.task.is_correct(plan.attempts[key].problem, text),
            answer=plan.task.extract_answer(text),
        )
        journal.add(row)
        return row

    return judged(texts, judge)


def _write(plan: CollectionPlan, unit: Unit[Key], rows: Sequence[Row]) -> Part:
    """The part of a unit's rows."""
    kept = [row for row in rows if row.correct or plan.config.keep == "all"]
    wrong = tuple(row.key for row in rows if not row.correct and plan.config.keep == "correct")
    coverage = Coverage(wrong, plan.digest(row.key for row in rows))
    path = plan.output / part_name(unit.start, [row.key for row in rows])
    part = Part(path, plan.metadata, coverage, [_trajectory(plan, row) for row in kept])
    write_part(path, part.metadata, part.trajectories, coverage=coverage)
    return part


def _trajectory(plan: CollectionPlan, row: Row) -> Trajectory:
    attempt = plan.attempts[row.key]
    return Trajectory(
        id=row.id,
        sample=row.sample,
        task=plan.task.name,
        prompt_ids=np.asarray(attempt.prompt_ids),
        teacher_prompt_ids=np.asarray(attempt.teacher_prompt_ids),
        response_ids=np.asarray(row.response_ids),
        reveal_step=np.asarray(row.reveal_step),
        num_steps=row.num_steps,
        correct=row.correct,
        answer=row.answer,
        reference=attempt.problem.reference,
    )


def _summary(plan: CollectionPlan, seconds: float) -> CollectSummary:
    parts = read_parts(plan.output)
    decoded = sum(key in plan.attempts for part in parts for key in part.keys)  # there may be more, of a higher limit
    kept = [record for part in parts for record in part.trajectories if record.key in plan.attempts]
    right, steps = (sum(getattr(record, name) for record in kept) for name in ("correct", "num_steps"))
    accuracy, mean_steps = right / max(decoded, 1), steps / max(len(kept), 1)
    return CollectSummary(decoded, len(plan.attempts), len(kept), accuracy, mean_steps, seconds)
