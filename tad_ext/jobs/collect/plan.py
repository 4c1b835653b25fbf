"""What a collection run is going to do, all checked before the model is loaded: problems, settings, open units."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tad_ext.data.tasks import Problem, Task
from tad_ext.data.trajectories import Part, noted_model
from tad_ext.data.trajectory_metadata import ProblemRange, TrajectoryMetadata
from tad_ext.decoding import DecodeConfig
from tad_ext.files import output_folder
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.jobs.common import is_another_model
from tad_ext.models.device import device_of_process, resolve_dtype
from tad_ext.models.identity import identity_text, model_identity
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

    config: CollectConfig
    task: Task
    tokenizer: Any
    samples: Sequence[Sample]
    decoding: DecodeConfig
    metadata: TrajectoryMetadata
    output: Path
    device: str
    rank: int
    world_size: int

    @classmethod
    def make(cls, config: CollectConfig) -> "CollectionPlan":
        """Checks every setting, the checkpoint's folder and every prompt, and makes the output folder.

        Raises ValueError/TypeError naming the setting, its value and what was expected.
        """
        # 1. Where, which problems and how.
        rank, world_size, device = _place(config.device)
        task, problems, lengths = config.problems(config.seed)
        decoding = replace(config.decoding, **lengths, stop_at_eos=config.stop_at_eos)
        dtype = resolve_dtype(config.dtype)

        # 2. What the model's folder says of it, and what the output's says of an earlier run.
        model_config = load_config(config.model)
        tokenizer = load_tokenizer(config.model)
        metadata = TrajectoryMetadata(
            model=config.model,
            model_revision=_revision(config),
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

        # 3. The prompts, and last of all the folder.
        longest = model_config.max_position_embeddings - decoding.gen_length
        if longest < 1:
            most = model_config.max_position_embeddings
            raise ValueError(f"gen_length is {decoding.gen_length}; expected less than the model's {most} positions")
        samples = _samples(task, tokenizer, problems, longest)
        output = output_folder(config.output)
        return cls(config, task, tokenizer, samples, decoding, metadata, output, device, rank, world_size)

    def digest(self, start: int, stop: int) -> str:
        """A hash of problems and prompts, which tells whether a part was made from the same ones."""
        content = [
            [item.problem.id, item.problem.reference, item.problem.answer, item.prompt_ids, item.teacher_prompt_ids]
            for item in self.samples[start:stop]
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def checked(self, part: Part) -> ProblemRange:
        """The problems of a part; ValueError, with its path, if this run would have written another one."""
        problems, keep = part.problems, self.config.keep
        differing = self.metadata.differences(part.metadata)
        if differing:
            name, own, found = differing[0]
            foreign = f"was collected with {name} = {found!r}, this run has {own!r}"
        elif problems is None:
            foreign = "does not name the problems it covers, expected a part of tad collect"
        elif problems.stop > len(self.samples):
            foreign = f"covers problems up to number {problems.stop}, this run has {len(self.samples)} only (limit)"
        elif problems.digest != self.digest(problems.start, problems.stop):
            foreign = "was collected from other problems or prompts than the task gives now"
        elif len(part.trajectories) != (problems.count if keep == "all" else problems.right):
            foreign = (
                f"was not collected with keep = {keep!r}: it holds {len(part.trajectories)} trajectories of "
                f"{problems.count} problems, {problems.right} of them right"
            )
        else:
            return problems
        raise ValueError(f"output: {part.path} {foreign}; choose another folder or the same settings")


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


def _place(device: str) -> tuple[int, int, str]:
    """(rank, world size, device) from the variables that torchrun and accelerate set."""
    defaults = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    texts = {name: os.environ.get(name, default) for name, default in defaults.items()}
    if not all(map(str.isdecimal, texts.values())) or int(texts["RANK"]) >= int(texts["WORLD_SIZE"]):
        raise ValueError(f"expected integers 0 <= RANK < WORLD_SIZE in the environment, got {texts}")
    return int(texts["RANK"]), int(texts["WORLD_SIZE"]), str(device_of_process(device))


def _revision(config: CollectConfig) -> str:
    """The model's identity, in the words of the files that are in the folder already, so that it stays one folder."""
    own, noted = model_identity(config.model), noted_model(config.output)
    if noted is None:
        return identity_text(own)
    is_another_model(noted, own, config)  # which is refused, or allowed
    return noted


def _samples(task: Task, tokenizer: Any, problems: Sequence[Problem], longest: int) -> list[Sample]:
    """The problems with their prompts of at most `longest` tokens, each with a name and a reference of its own."""
    samples: dict[str, Sample] = {}
    for problem in problems:
        prompt, teacher_prompt = task.student_prompt(problem, tokenizer), task.teacher_prompt(problem, tokenizer)
        sample = Sample(problem, list(prompt), list(teacher_prompt))
        if not problem.reference or sample.teacher_prompt_ids == sample.prompt_ids:
            raise ValueError(
                f"problem {problem.id!r} gives its teacher nothing that its student does not see, expected a reference "
                f"in the teacher's prompt"
            )
        if problem.id in samples:
            raise ValueError(f"task {task.name!r} gives the problem id {problem.id!r} twice, expected once")
        length = max(len(sample.prompt_ids), len(sample.teacher_prompt_ids))
        if length > longest:
            raise ValueError(
                f"problem {problem.id!r} has a prompt of {length} tokens, expected at most {longest}: the model's "
                f"max_position_embeddings less gen_length"
            )
        samples[problem.id] = sample
    return list(samples.values())
