"""`tad collect`: the teacher decodes each problem one token per forward, and right answers are kept (or all).

The teacher is the model itself, given a privileged prompt: the question together with its reference solution. What it
reveals, and in which order, the student later learns to do from the plain prompt in fewer forwards (arXiv 2605.09536).

Problems are worked off in units of neighbouring problems. A finished unit is one part file that says which problems it
covers, so a killed run is continued by the same command, with any number of ranks: only unfinished units are decoded
again, in the batches and with the random streams they would have had, so the result is that of an undisturbed run.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from tad_ext.data.trajectories import Trajectory, part_name, read_parts, write_part
from tad_ext.data.trajectory_metadata import ProblemRange
from tad_ext.decoding import decode
from tad_ext.files import remove_leftovers
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.jobs.collect.plan import CollectionPlan, open_units
from tad_ext.models.loading import load_model


@dataclass(frozen=True)
class CollectSummary:
    """What the folder holds when this rank has finished; of several ranks, the last to finish counts everything."""

    problems: int  #: decoded so far, of `total`
    total: int  #: problems of the whole collection
    kept: int  #: trajectories written: those with a right answer, or all
    accuracy: float  #: of the teacher: right answers / problems
    mean_steps: float  #: forwards per kept trajectory
    seconds: float  #: of this call

    def __str__(self) -> str:
        return (
            f"{self.problems} of {self.total} problems decoded: {self.kept} trajectories kept (teacher accuracy "
            f"{100 * self.accuracy:.1f} %), {self.mean_steps:.1f} forwards each; this run took {self.seconds:.1f} s"
        )


def collect(config: CollectConfig) -> CollectSummary:
    """Decodes the privileged prompt of each problem; writes trajectories to ``config.output``.

    Everything is checked before the model is loaded. Under torchrun or accelerate (RANK, WORLD_SIZE) each rank works
    off its own units and writes its own files; rank 0 shows progress and prints the summary.

    Raises ValueError, TypeError naming the setting, its value and what was expected, or a file in the folder that is
    damaged or of other settings or problems; FileNotFoundError for no such problem file; RuntimeError if another run,
    still alive, wrote the same problems meanwhile.
    """
    started = time.perf_counter()
    # 1. What is to be done, and what is done already.
    plan = CollectionPlan.make(config)
    shown = plan.rank == 0
    covered = [plan.checked(part) for part in read_parts(plan.output)]
    remove_leftovers(plan.output, f"part-{plan.rank:05d}-*.parquet")
    if covered and shown:
        print(f"continuing in {plan.output}: {sum(done.count for done in covered)} problems are done already")

    # 2. This rank's share of the rest. A unit's place decides, so that ranks agree whatever each finds finished.
    size, world_size = config.unit_size, plan.world_size
    units = [one for one in open_units(len(plan.samples), covered, size) if one.start // size % world_size == plan.rank]
    model = load_model(config.model, dtype=config.dtype, device=plan.device) if units else None
    right = decoded = 0
    share = "" if world_size == 1 else f" (rank 0 of {world_size})"
    total, hidden = sum(map(len, units)), not (shown and units)
    with tqdm(total=total, desc=f"collecting{share}", unit="problem", disable=hidden) as bar:
        for unit in units:
            records = _decode_unit(plan, model, unit, progress=shown)
            _write_unit(plan, unit, records)
            right, decoded = right + sum(record.correct for record in records), decoded + len(unit)
            bar.set_postfix_str(f"accuracy {100 * right / decoded:.1f} %", refresh=False)
            bar.update(len(unit))

    # 3. What the folder holds now.
    summary = _summary(plan, time.perf_counter() - started)
    if shown:
        print(summary)
    return summary


def _decode_unit(plan: CollectionPlan, model: Any, unit: range, *, progress: bool) -> list[Trajectory]:
    """The unit's trajectories that are to be kept."""
    samples = plan.samples[unit.start : unit.stop]
    # decode gives its prompt number i the stream seed + i, so problem number n has the same stream in every unit.
    config = replace(plan.decoding, seed=plan.config.seed * 2**32 + unit.start)
    result = decode(model, [sample.teacher_prompt_ids for sample in samples], config, progress=progress)
    records = []
    decoded = zip(samples, result.canvases(), result.responses(), strict=True)
    for index, (sample, canvas, response) in enumerate(decoded):
        text = plan.tokenizer.decode(response, skip_special_tokens=True)
        record = Trajectory(
            id=sample.problem.id,
            task=plan.task.name,
            prompt_ids=np.asarray(sample.prompt_ids),
            teacher_prompt_ids=np.asarray(sample.teacher_prompt_ids),
            response_ids=np.asarray(canvas),
            reveal_step=result.reveal_step[index].numpy(),
            num_steps=int(result.forwards[index]),
            correct=plan.task.is_correct(sample.problem, text),
            answer=plan.task.extract_answer(text),
            reference=sample.problem.reference,
        )
        if record.correct or plan.config.keep == "all":
            records.append(record)
    return records


def _write_unit(plan: CollectionPlan, unit: range, records: Sequence[Trajectory]) -> None:
    # The first problem's number as sequence number: unique among parts that share no problem, whatever their unit size.
    others = list(plan.output.glob(f"part-*-{unit.start:08d}.parquet"))
    if others:
        raise RuntimeError(
            f"{others[0]} appeared while the same problems were decoded here: another run is writing to this folder; "
            f"stop it, then start this one again"
        )
    digest = plan.digest(unit.start, unit.stop)
    right = sum(record.correct for record in records)
    problems = ProblemRange(unit.start, unit.stop, right=right, wrong=len(unit) - right, digest=digest)
    write_part(plan.output / part_name(plan.rank, unit.start), plan.metadata, records, problems=problems)


def _summary(plan: CollectionPlan, seconds: float) -> CollectSummary:
    parts = read_parts(plan.output)
    problems = sum(part.problems.count for part in parts if part.problems)
    right = sum(part.problems.right for part in parts if part.problems)
    steps = [record.num_steps for part in parts for record in part.trajectories]
    accuracy, mean_steps = right / max(problems, 1), sum(steps) / max(len(steps), 1)
    return CollectSummary(problems, len(plan.samples), len(steps), accuracy, mean_steps, seconds)
