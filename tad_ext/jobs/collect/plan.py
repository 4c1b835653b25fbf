"""What a collection run is going to do, all checked before the model is loaded: its problems, its settings, and which
units of them are still to be decoded.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tad_ext.data.tasks import Problem, Task, get_task
from tad_ext.data.trajectories import Part, noted_model, read_parts
from tad_ext.data.trajectory_metadata import ProblemRange, TrajectoryMetadata
from tad_ext.decoding import DecodeConfig
from tad_ext.files import output_folder
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.models.device import resolve_device, resolve_dtype
from tad_ext.models.identity import described, identity_differences, identity_text, model_identity
from tad_ext.models.loading import load_config, load_tokenizer
from tad_ext.models.tokenizers import tokenizer_hash


@dataclass(frozen=True)
class Sample:
    """A problem with the prompts of its student and its teacher as token ids."""

    problem: Problem
    prompt_ids: list[int]
    teacher_prompt_ids: list[int]


@dataclass(frozen=True)
class CollectionPlan:
    """Everything that is known before the model is loaded."""

    task: Task
    tokenizer: Any
    samples: Sequence[Sample]
    decoding: DecodeConfig
    metadata: TrajectoryMetadata
    output: Path
    keep: str
    device: str
    unit_size: int
    rank: int
    world_size: int

    @classmethod
    def make(cls, config: CollectConfig) -> CollectionPlan:
        """Checks every setting, the checkpoint's folder and every prompt, and makes the output folder.

        Raises ValueError/TypeError naming the setting, its value and what was expected.
        """
        rank, world_size, device = _place(config.device)
        task = get_task(config.task, data=config.data, teacher_prompt_form=config.teacher_prompt)
        decoding = replace(
            config.decoding,
            gen_length=config.gen_length or task.gen_length,
            block_length=config.block_length or task.block_length,
            stop_at_eos=config.stop_at_eos,
        )
        dtype = resolve_dtype(config.dtype)
        model_config = load_config(config.model)
        revision = _revision(config)
        tokenizer = load_tokenizer(config.model)
        metadata = TrajectoryMetadata(
            model=config.model,
            model_revision=revision,
            tokenizer_hash=tokenizer_hash(tokenizer),
            task=task.name,
            split=config.split,
            mask_token_id=model_config.mask_token_id,
            gen_length=decoding.gen_length,
            block_length=decoding.block_length,
            policy=str(decoding.policy),
            temperature=decoding.temperature,
            seed=config.seed,
            stop_at_eos=decoding.stop_at_eos,
            dtype=str(dtype or model_config.dtype or "auto").removeprefix("torch."),
        )
        samples = _samples(task, tokenizer, config, model_config.max_position_embeddings - decoding.gen_length)
        output = output_folder(config.output)
        return cls(
            task,
            tokenizer,
            samples,
            decoding,
            metadata,
            output,
            config.keep,
            device,
            config.unit_size,
            rank,
            world_size,
        )

    def finished_ranges(self) -> list[ProblemRange]:
        """What earlier runs have covered, in order, after checking that this run would have written the same.

        Raises ValueError naming the file and what differs.
        """
        return [self._checked(part) for part in read_parts(self.output)]

    def open_units(self, covered: Sequence[ProblemRange]) -> list[range]:
        """This rank's share of the problems not covered: a unit's place decides, so that ranks agree without talking,
        whatever each of them finds finished.
        """
        units = open_units(len(self.samples), covered, self.unit_size)
        return [unit for unit in units if unit.start // self.unit_size % self.world_size == self.rank]

    def digest(self, start: int, stop: int) -> str:
        """A hash of problems and prompts, which tells whether a part was made from the same ones."""
        content = [
            [item.problem.id, item.problem.reference, item.problem.answer, item.prompt_ids, item.teacher_prompt_ids]
            for item in self.samples[start:stop]
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def _checked(self, part: Part) -> ProblemRange:
        noted, own = part.metadata.model_revision, self.metadata.model_revision
        differing = identity_differences(noted, own, self.metadata.model) if noted != own else []
        if differing:
            raise ValueError(
                f"output: {part.path} was collected with another model: {described(differing)}; choose another folder "
                f"or that model, or set allow_other_model"
            )
        for name, expected, found in self.metadata.differences(part.metadata):
            raise ValueError(
                f"output: {part.path} was collected with {name} = {found!r}, this run has {expected!r}; "
                f"choose another folder or the same settings"
            )
        problems = part.problems
        if problems is None:
            raise ValueError(
                f"output: {part.path} does not name the problems it covers, expected a part of tad collect"
            )
        if problems.stop > len(self.samples):
            raise ValueError(
                f"limit: {part.path} covers problems up to number {problems.stop}, "
                f"this run has {len(self.samples)} only"
            )
        if problems.digest != self.digest(problems.start, problems.stop):
            raise ValueError(
                f"output: {part.path} was collected from other problems or prompts than the task gives now"
            )
        if len(part.trajectories) != (problems.count if self.keep == "all" else problems.right):
            raise ValueError(
                f"output: {part.path} was not collected with keep = {self.keep!r}: it holds {len(part.trajectories)} "
                f"trajectories of {problems.count} problems, {problems.right} of them right; choose another folder or "
                f"the same settings"
            )
        return problems


def _revision(config: CollectConfig) -> str:
    """The model's identity, in the words of the files that are in the folder already, so that it stays one folder."""
    own = model_identity(config.model)
    noted = noted_model(config.output)
    if noted is not None and (config.allow_other_model or not identity_differences(noted, own, config.model)):
        return noted
    return identity_text(own)


def open_units(problems: int, covered: Sequence[ProblemRange], unit_size: int) -> Iterator[range]:
    """The problems of 0..problems - 1 that no range covers, cut at every multiple of ``unit_size``.

    ``covered`` is in order and without overlap; it may come from runs with another unit size.
    """
    start = 0
    for stop, following in [*((done.start, done.stop) for done in covered), (problems, problems)]:
        while start < stop:
            end = min(stop, (start // unit_size + 1) * unit_size)
            yield range(start, end)
            start = end
        start = following


def _samples(task: Task, tokenizer: Any, config: CollectConfig, longest: int) -> list[Sample]:
    if longest < 1:
        raise ValueError(
            f"gen_length leaves no room for a prompt: expected less than the model's max_position_embeddings, "
            f"got {1 - longest} more"
        )
    problems = task.problems(config.split, limit=config.limit, seed=config.seed)
    if not problems:
        raise ValueError(f"task {task.name!r} has no problems in split {config.split!r}")
    samples = [
        Sample(problem, list(task.student_prompt(problem, tokenizer)), list(task.teacher_prompt(problem, tokenizer)))
        for problem in problems
    ]
    seen: set[str] = set()
    for sample in samples:
        if not sample.problem.reference or sample.teacher_prompt_ids == sample.prompt_ids:
            raise ValueError(
                f"problem {sample.problem.id!r} gives its teacher nothing that its student does not see, expected a "
                f"reference in the teacher's prompt"
            )
        if sample.problem.id in seen:
            raise ValueError(f"task {task.name!r} gives the problem id {sample.problem.id!r} twice, expected once")
        seen.add(sample.problem.id)
        length = max(len(sample.prompt_ids), len(sample.teacher_prompt_ids))
        if length > longest:
            raise ValueError(
                f"problem {sample.problem.id!r} has a prompt of {length} tokens, expected at most {longest}: "
                f"the model's max_position_embeddings less gen_length"
            )
    return samples


def _place(device: str) -> tuple[int, int, str]:
    """(rank, world size, device) from the variables that torchrun and accelerate set."""
    defaults = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    texts = {name: os.environ.get(name, default) for name, default in defaults.items()}
    try:
        rank, world_size, local_rank = map(int, texts.values())
    except ValueError as error:
        raise ValueError(f"expected integers in the environment variables {texts}") from error
    if not 0 <= rank < world_size:
        raise ValueError(f"expected 0 <= RANK < WORLD_SIZE, got RANK={rank} and WORLD_SIZE={world_size}")
    if device == "auto" and torch.cuda.is_available():
        device = f"cuda:{local_rank}"
    return rank, world_size, str(resolve_device(device))
