"""What several commands have in common: the model that they load, the problems that they decode, the trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from tad_ext.data.tasks.task import Problem, Split, Task, TaskName, get_task
from tad_ext.decoding.config import whole_blocks
from tad_ext.jobs import JobSettings
from tad_ext.settings import Count, Device, DType, Index, PathText, setting

if TYPE_CHECKING:
    from tad_ext.data.trajectories.files import Trajectory
    from tad_ext.decoding import DecodeConfig
    from tad_ext.distillation.held_out import HeldOut
    from tad_ext.distillation.run_settings import AdapterRunSettings
    from tad_ext.sharing.work import Place


@dataclass(frozen=True, kw_only=True)
class ModelSettings(JobSettings):
    """The settings of a command that loads a model with its adapter."""

    model: PathText = setting(help="checkpoint folder of the model, or its hub id: org/name, org/name@revision")
    adapter: PathText | None = setting(
        None, help="folder or hub id of a LoRA adapter to apply (merged before decoding)"
    )
    allow_other_model: bool = setting(False, help="apply the adapter although it was trained on another base model")
    device: Device = setting("auto", help="auto, cpu, cuda or cuda:N")
    dtype: DType = setting("auto", help="auto (as stored), float32 or bfloat16")

    def load(self) -> Any:
        """The model with its adapter merged. Errors as `load_merged`."""
        from tad_ext.models.lora import load_merged  # here, because torch takes seconds to import

        return load_merged(
            self.model, self.adapter, dtype=self.dtype, device=self.device, allow_other_model=self.allow_other_model
        )


def decoding_of(config: Any) -> DecodeConfig:
    """The settings `config.decoding`, in the blocks of a model that has its own. Errors as `load_config`."""
    from tad_ext.models.loading import load_config

    decoding: DecodeConfig = config.decoding
    return decoding.in_blocks_of(load_config(config.model).causal_block_length, config.given)


@dataclass(frozen=True, kw_only=True)
class TaskSettings(JobSettings):
    """The settings of a command that decodes the problems of a task."""

    model: PathText = setting(help="checkpoint folder of the model, or its hub id: org/name, org/name@revision")
    output: PathText = setting(help="folder to write into")
    task: TaskName = setting("arithmetic", help="task whose problems are decoded")
    data: PathText | None = setting(
        None,
        help="the task's problem file, which is the split: .jsonl, .jsonl.gz or .parquet; or hub (its usual data set) "
        "or hub:NAME, read by the package datasets",
    )
    split: Split = setting("train", help="problems of which split")
    limit: Count | None = setting(None, help="number of problems; none: all of the split")
    teacher_prompt: Literal["user", "system", "none"] = setting(
        "user",
        help="where the teacher sees the reference: user (in the user's message, as published for collection), system "
        "(in a system message, as published for training) or none (nowhere: the published ablation)",
    )
    prompt_format: Literal["chat", "text"] = setting(
        "chat", help="chat (the tokenizer's template) or text (plain, for a model that was not trained to chat)"
    )
    shots: Index = setting(0, help="examples before the question: the file's first problems, which are not asked then")
    unprotected: bool = setting(
        False, help="run the code of responses even where not all protections from it can be had; tad doctor names them"
    )
    gen_length: Count | None = setting(None, help="positions to generate; none: the task's own, in whole blocks")
    block_length: Count | None = setting(
        None, help="positions per block; none: those of a model that attends block-causally, or the task's own"
    )

    def problems(self, seed: int) -> tuple[Task, list[Problem], dict[str, Any]]:
        """The task, the problems that the settings name, and the lengths of canvas and block for a `DecodeConfig`.

        Raises ValueError for a setting that the task does not take and for no problems, FileNotFoundError.
        """
        # What is at its default is no option, as not every task has it.
        names = ("teacher_prompt", "prompt_format", "shots", "unprotected")
        given = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(TaskSettings, name)}
        if "teacher_prompt" in given:
            given["teacher_prompt_form"] = given.pop("teacher_prompt")
        task = get_task(self.task, data=self.data, **given)
        problems = task.problems(self.split, limit=self.limit, seed=seed)
        if not problems:
            raise ValueError(f"task {self.task!r} has no problems in split {self.split!r}")
        return task, problems, self.lengths(task)

    def lengths(self, otherwise: Task | DecodeConfig) -> dict[str, int]:
        """Of canvas and block: those that are named, else the model's own block, else those of a task or a preset.

        No block is longer than a canvas. A canvas that is not named is whole blocks of a model that has its own.
        """
        gen_length = self.gen_length or otherwise.gen_length
        if own := None if self.block_length else self._own_blocks():
            whole = gen_length if self.gen_length else whole_blocks(gen_length, own)
            return {"gen_length": whole, "block_length": own}
        return {"gen_length": gen_length, "block_length": self.block_length or min(otherwise.block_length, gen_length)}

    def _own_blocks(self) -> int | None:
        """Positions of a block of the model, None where it attends to all."""
        from tad_ext.models.loading import load_config

        return load_config(self.model).causal_block_length


@dataclass(frozen=True, kw_only=True)
class TrajectorySettings(JobSettings):
    """The settings of a command that reads trajectory files."""

    trajectories: tuple[PathText, ...] = setting(help="folders of trajectory files")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.trajectories:
            raise ValueError("trajectories must name at least one folder, got an empty list")
        if len({Path(folder).resolve() for folder in self.trajectories}) < len(self.trajectories):
            raise ValueError(f"trajectories must name different folders, got {', '.join(self.trajectories)}")


@dataclass(frozen=True, kw_only=True)
class KeptTrajectorySettings(TrajectorySettings):
    """Those of one that leaves out wrong answers unless it is told otherwise."""

    keep: Literal["correct", "all"] = setting("correct", help="trajectories to use: correct (as published) or all")

    def kept(self, trajectories: Sequence[Trajectory]) -> list[Trajectory]:
        """Those to use. ValueError if there is none."""
        kept = [one for one in trajectories if one.correct or self.keep == "all"]
        if not kept:
            wanted = "trajectory" if self.keep == "all" else "trajectory with a correct answer"
            raise ValueError(f"trajectories in {', '.join(self.trajectories)} hold no {wanted}")
        return kept


def held_out(
    config: AdapterRunSettings, trajectories: Sequence[Trajectory], tokenizer: Any, model_config: Any
) -> HeldOut | None:
    """What the model of a training that begins is measured on, None if never, as `config.evaluation` says.

    ValueError, FileNotFoundError for settings that cannot be met, prompts that are too long, and problems that are
    among the trajectories.
    """
    from tad_ext.decoding.inputs import check_compatible, check_prompts
    from tad_ext.decoding.presets import preset
    from tad_ext.distillation.held_out import HeldOut

    chosen = config.evaluation
    if not chosen.evaluate_every:
        return None
    try:
        names = ("task", "data", "split", "limit", "prompt_format", "gen_length", "block_length")
        named = {name: getattr(chosen, f"evaluate_{name}") for name in names}
        settings = TaskSettings(model=config.model, output=config.output, **named)
        task, problems, lengths = settings.problems(config.training.seed)
        # Recorded graphs would keep memory that the training needs.
        changes = {"stop_at_eos": False, "stop_strings": task.stop_strings, "cuda_graphs": False}
        own = {"policy": chosen.evaluate_policy, "batch_size": chosen.evaluate_batch_size}
        decoding = preset("tad", **lengths, **changes, **own)
        prompts = [task.student_prompt(problem, tokenizer) for problem in problems]
        only_configured: Any = SimpleNamespace(config=model_config)
        check_compatible(model_config, decoding)
        check_prompts(prompts, model=only_configured, config=decoding, mask=model_config.mask_token_id)
    except ValueError as error:
        raise ValueError(f"evaluate_task is {chosen.evaluate_task!r}: {error}") from error
    # A user's own responses have no problems' ids, but the same prompt is the same problem.
    known = {one.id for one in trajectories if one.task == task.name}
    asked = {tuple(one.prompt_ids.tolist()) for one in trajectories}
    both = [
        problem.id
        for problem, prompt in zip(problems, prompts, strict=True)
        if problem.id in known or tuple(prompt) in asked
    ]
    if both:
        raise ValueError(
            f"evaluate_task is {chosen.evaluate_task!r}: trajectories hold {len(both)} of its {len(problems)} "
            f"problems, such as {min(both)!r}; expected problems that are not trained on"
        )
    return HeldOut(chosen.evaluate_every, task, problems, decoding, tokenizer)


def place_of_process(device: str) -> tuple[Place, str]:
    """Which of the processes that share the work this is, and its device. ValueError for variables without sense."""
    from tad_ext.models.device import device_of_process
    from tad_ext.sharing.work import Place

    return Place.of_this_process(), str(device_of_process(device))


def is_another_model(noted: str | Mapping[str, Any], own: Mapping[str, Any], config: Any) -> bool:
    """Whether what an output folder holds was made with another model than the command's, as the noted identity says.

    ValueError if so, unless its `allow_other_model` is set.
    """
    from tad_ext.models.identity import described, identity_differences

    differing = identity_differences(noted, own, config.model)
    if differing and not config.allow_other_model:
        raise ValueError(
            f"output: what '{config.output}' holds was made with another model: {described(differing)}; choose another "
            f"folder or that model, or set allow_other_model"
        )
    return bool(differing)
