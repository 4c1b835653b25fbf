"""What a collection run is going to do, all checked before the model is loaded: problems, settings, units of work."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tad_ext.data.tasks.prompts import OWN_FORM, UNPRIVILEGED
from tad_ext.data.tasks.task import Problem, Task
from tad_ext.data.trajectories.files import Part, Trajectory, noted_model
from tad_ext.data.trajectories.journal import read_journals
from tad_ext.data.trajectories.metadata import Key, TrajectoryMetadata
from tad_ext.decoding import DecodeConfig
from tad_ext.decoding.inputs import check_compatible, longest_prompt
from tad_ext.decoding.policies.base import fingerprint_of, resizes, revises
from tad_ext.files import output_folder
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.jobs.common import is_another_model, place_of_process
from tad_ext.models.device import resolve_dtype
from tad_ext.models.hub import hub_note
from tad_ext.models.identity import identity_text, model_identity
from tad_ext.models.loading import load_config, load_tokenizer
from tad_ext.models.tokenizers import tokenizer_hash
from tad_ext.sharing.work import Place, Unit, units_of


@dataclass(frozen=True)
class Attempt:
    """One answer that the teacher is to give: a problem, with the prompts of student and teacher as token ids."""

    problem: Problem
    sample: int  #: which of the answers to it, from 0
    prompt_ids: list[int]
    teacher_prompt_ids: list[int]

    @property
    def key(self) -> Key:
        """Of its trajectory."""
        return self.problem.id, self.sample


@dataclass(frozen=True)
class CollectionPlan:
    """Everything that is known before the model is loaded."""

    config: CollectConfig
    task: Task
    tokenizer: Any
    attempts: Mapping[Key, Attempt]  #: first samples first, in the problems' order
    decoding: DecodeConfig
    metadata: TrajectoryMetadata
    output: Path
    device: str
    place: Place

    @classmethod
    def make(cls, config: CollectConfig) -> "CollectionPlan":
        """Checks every setting, the checkpoint's folder and every prompt, and makes the output folder.

        Raises ValueError/TypeError naming the setting, its value and what was expected.
        """
        # 1. Where, which problems and how.
        place, device = place_of_process(config.device)
        task, problems, lengths = config.problems(config.seed)
        if "preset" in config.given:
            lengths = config.lengths(config.decoding)
        decoding = replace(config.decoding, **lengths, stop_at_eos=config.stop_at_eos, seed=0)
        if revises(decoding.policy) or resizes(decoding.policy):
            raise ValueError(
                f"policy is {decoding.policy}, which changes tokens that it has set, or moves them: expected one whose "
                f"states can be told from the forward that revealed each token"
            )
        dtype = resolve_dtype(config.dtype)

        # 2. What the model's folder says of it, and what the output's says of an earlier run.
        model_config = load_config(config.model)
        check_compatible(model_config, decoding)
        tokenizer = load_tokenizer(config.model)
        metadata = TrajectoryMetadata(
            model=hub_note(config.model).get("hub", config.model),
            model_revision=_revision(config),
            tokenizer_hash=tokenizer_hash(tokenizer),
            task=task.name,
            split=config.split,
            teacher_prompt=getattr(task, "teacher_prompt_form", OWN_FORM),
            mask_token_id=model_config.mask_token_id,
            gen_length=decoding.gen_length,
            block_length=decoding.block_length,
            policy=str(decoding.policy),
            block_add_threshold=decoding.block_add_threshold,
            decoded_token_threshold=decoding.decoded_token_threshold,
            forced_progress=decoding.forced_progress,
            hide_future_blocks=decoding.hide_future_blocks,
            block_causal=decoding.block_causal,
            stop_when=decoding.stop_when,
            temperature=decoding.temperature,
            top_k=decoding.top_k,
            top_p=decoding.top_p,
            cache=str(decoding.cache or "none"),
            seed=config.seed,
            stop_at_eos=decoding.stop_at_eos,
            dtype=str(dtype or model_config.dtype or "auto").removeprefix("torch."),
            keep=config.keep,
            **fingerprint_of(decoding.policy),
        )

        # 3. The prompts, and last of all the folder.
        longest = longest_prompt(model_config, decoding)
        if longest < 1:
            most = model_config.max_position_embeddings
            raise ValueError(f"gen_length is {decoding.gen_length}; expected less than the model's {most} positions")
        attempts = _attempts(task, tokenizer, problems, longest, config.samples)
        output = output_folder(config.output)
        return cls(config, task, tokenizer, attempts, decoding, metadata, output, device, place)

    def units(self) -> list[Unit[Key]]:
        """All the work, done or not, in units that become one part each."""
        return units_of(list(self.attempts), self.config.unit_size)

    def digest(self, keys: Iterable[Key]) -> str:
        """A hash of problems and prompts, which tells whether something was made from the same ones."""
        content = []
        for key in sorted(keys):
            attempt = self.attempts[key]
            problem = attempt.problem
            content.append([*key, problem.reference, problem.answer, attempt.prompt_ids, attempt.teacher_prompt_ids])
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    @property
    def work(self) -> str:
        """A hash of all that processes must agree on to share the work: settings, problems and units."""
        settings = dataclasses.asdict(self.metadata) | {"model": ""}  # by whatever name: it is the same
        content = [settings, self.digest(self.attempts), list(self.attempts), self.config.unit_size]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def stream(self, key: Key) -> int:
        """The number of an attempt's random stream, wherever it stands in the list."""
        return int(hashlib.sha256(json.dumps([self.config.seed, *key]).encode()).hexdigest()[:15], 16)

    def check_metadata(self, path: Path, metadata: TrajectoryMetadata) -> None:
        """ValueError, naming the file, if it is of a run with other settings."""
        for name, own, found in self.metadata.differences(metadata):
            self._refuse(path, f"was collected with {name} = {found!r}, this run has {own!r}")

    def check(self, part: Part) -> None:
        """ValueError, with its path, if this run would have written another part.

        Problems that the task does not give any more (a lower limit) stay; of their parts, records are compared.
        """
        self.check_metadata(part.path, part.metadata)
        if part.coverage is None:
            self._refuse(part.path, "does not say what it was decoded from, expected a part of tad collect")
        elif all(key in self.attempts for key in part.keys):
            same = part.coverage.digest == self.digest(part.keys)
        else:
            same = all(self._gives(item) for item in part.trajectories if item.key in self.attempts)
        if not same:
            self._refuse(part.path, "was collected from other problems or prompts than the task gives now")

    def _gives(self, item: Trajectory) -> bool:
        """Whether the task gives the problem of a record as it was."""
        attempt = self.attempts[item.key]
        prompts = ((item.prompt_ids, attempt.prompt_ids), (item.teacher_prompt_ids, attempt.teacher_prompt_ids))
        return item.reference == attempt.problem.reference and all(map(np.array_equal, *zip(*prompts, strict=True)))

    def _refuse(self, path: Path, reason: str) -> NoReturn:
        raise ValueError(f"output: {path} {reason}; choose another folder or the same settings")


def _revision(config: CollectConfig) -> str:
    """The model's identity, in the words of the files that are in the folder already, so that it stays one folder."""
    own, noted = model_identity(config.model), noted_model(config.output)
    if noted is None:
        noted = next((run.model_revision for _, run, _ in read_journals(Path(config.output))), None)
    if noted is None:
        return identity_text(own)
    is_another_model(noted, own, config)  # which is refused, or allowed
    return noted


def _attempts(
    task: Task, tokenizer: Any, problems: Sequence[Problem], longest: int, samples: int
) -> dict[Key, Attempt]:
    """The problems with their prompts of at most `longest` tokens, each with a name and a reference of its own."""
    first: dict[str, Attempt] = {}
    for problem in problems:
        prompt, teacher_prompt = task.student_prompt(problem, tokenizer), task.teacher_prompt(problem, tokenizer)
        attempt = Attempt(problem, 0, list(prompt), list(teacher_prompt))
        privileged = getattr(task, "teacher_prompt_form", None) != UNPRIVILEGED
        if privileged and (not problem.reference or attempt.teacher_prompt_ids == attempt.prompt_ids):
            raise ValueError(
                f"problem {problem.id!r} gives its teacher nothing that its student does not see, expected a reference "
                f"in the teacher's prompt"
            )
        if not problem.id:
            raise ValueError(f"problem {problem.question[:80]!r} has no id, expected a text that is not empty")
        if problem.id in first:
            raise ValueError(f"task {task.name!r} gives the problem id {problem.id!r} twice, expected once")
        length = max(len(attempt.prompt_ids), len(attempt.teacher_prompt_ids))
        if length > longest:
            raise ValueError(
                f"problem {problem.id!r} has a prompt of {length} tokens, expected at most {longest}: the model's "
                f"max_position_embeddings less gen_length"
            )
        first[problem.id] = attempt
    every = [replace(attempt, sample=sample) for sample in range(samples) for attempt in first.values()]
    return {attempt.key: attempt for attempt in every}
