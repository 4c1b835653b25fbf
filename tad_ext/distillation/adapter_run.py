"""A training from its settings to the adapter in its folder: what the commands have in common that train one."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.fits import misfits
from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation.card import Card
from tad_ext.distillation.checkpoints import (
    BEST_FOLDER,
    EVALUATIONS_FILE,
    SPEED_FILE,
    STEPS_FILE,
    Progress,
    check_same_everywhere,
    checkpoints,
    latest,
    restore,
    run_values,
)
from tad_ext.distillation.curve import write_curve
from tad_ext.distillation.held_out import HeldOut, records
from tad_ext.distillation.objective import Objective
from tad_ext.distillation.responses import ResponseStates
from tad_ext.distillation.run_settings import AdapterRunSettings
from tad_ext.distillation.samples import Sample
from tad_ext.distillation.settings import STATE_SETTINGS, TrainingSettings, objective_class
from tad_ext.distillation.tracking import tracked, tracker_options
from tad_ext.distillation.trainer import NotFiniteError, StepRecord, Trainer
from tad_ext.files import output_folder, remove_folder, rescued, sole_writer, successor, tried_folder, write_json
from tad_ext.interrupts import shielded
from tad_ext.models.device import device_of_process
from tad_ext.models.gradient_checkpointing import enable_gradient_checkpointing
from tad_ext.models.hub import hub_note
from tad_ext.models.identity import model_identity
from tad_ext.models.loading import load_config, load_model, load_tokenizer
from tad_ext.models.lora import add_lora, load_adapter, save_adapter
from tad_ext.models.sharding import keep_out_of_ddp, shard_frozen_layers
from tad_ext.models.tokenizers import tokenizer_hash
from tad_ext.settings import options_of, values_of

ADAPTER_FOLDER = "adapter"
HISTORY_FILE = "training.json"
CURVE_FILE = "loss.svg"
NOT_FINITE_FILE = "not_finite.json"


@dataclass(frozen=True)
class TrainedAdapter:
    """What a run made."""

    adapter: Path  #: folder of the trained adapter, for `load_adapter`
    history: list[StepRecord]
    seconds: float  #: of training, without loading


class AdapterRun:
    """A run of a command. Made before its data are read: what can be refused by its settings alone is refused then.

    It writes into `config.output`: `adapter/`, `training.json` with `settings` and `steps`, a `StepRecord` each, and
    `loss.svg`; `speed.jsonl`; with `evaluate_every` also `evaluations.jsonl` and `best/`, the adapter of the highest
    accuracy, then tokens per forward; meanwhile `steps.jsonl`, and `checkpoint-<step>/` every `save_every` steps and
    when something stops it. Run again it goes on from the last of these, and ends with the weights of a run that was
    not stopped. With `overwrite` an earlier run's files stand until this one is complete. It is of one device, or of
    several through `accelerate launch` or `torchrun`. In float32 on a CPU the same settings give the same adapter bit
    for bit.

    Raises:
        ValueError: a setting that the objective does not have, a tracker that is not installed, a device that is not
            there.
        FileExistsError: `output` holds an adapter already and `overwrite` is off.
    """

    def __init__(self, config: AdapterRunSettings) -> None:
        self.config, self.output = config, Path(config.output)
        self.objective, self.values = objective_class(config.objective), used_settings(config)
        self.settings = _objective_settings(self.objective, self.values)
        self.trackers = tracker_options(config.tracker or (), config.output)
        self.device = device_of_process(config.device)
        if (self.output / "config.json").exists():
            raise FileExistsError(f"output {config.output!r} is a checkpoint's folder; choose another one")
        earlier = _earlier_files(self.output)
        # The end of a run writes its adapter, and removes its steps' file.
        ended = (self.output / ADAPTER_FOLDER).exists() or not checkpoints(self.output)
        if earlier and not config.overwrite and ended and not (self.output / STEPS_FILE).exists():
            raise FileExistsError(
                f"output {config.output!r} holds {earlier[0].name} already; choose another folder, or set overwrite"
            )

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Of the model in its folder."""
        return model_identity(self.config.model)

    def train(
        self, trajectories: Sequence[Trajectory], notes: Sequence[str], held_out: HeldOut | None = None
    ) -> TrainedAdapter:
        """Trains on these, which fit the model, and writes everything down. `notes` are printed before.

        Raises:
            ValueError: an output that cannot be written to, is being written by another run, or holds checkpoints of
                other settings or damaged ones, target names that match nothing, a teacher of other tokens, an adapter
                to start from that does not fit (see `load_adapter`), an `eos_tail` where the model has no end of
                sequence, a choice among states where each trajectory has one, a way to distribute the model that is
                not supported, processes that see other files.
            FloatingPointError: loss or gradients became NaN or infinite; the last checkpoint stays, and
                `not_finite.json` names the states of the step.
            OSError: the adapter could not be written; it says where it is instead.
        """
        config = self.config
        # 1. What is learnt of them.
        model_config = load_config(config.model)
        self.objective.check_model(model_config)
        mask, ends = model_config.mask_token_id, model_config.eos_token_ids or ()
        if config.eos_tail != "all" and not ends:
            raise ValueError(
                f"eos_tail is {config.eos_tail!r}, and the model has no end-of-sequence tokens; expected all"
            )
        recorded = TrajectoryStates(trajectories, mask_token_id=mask, eos_token_ids=ends, tail=config.eos_tail)
        states = self.objective.states(recorded, self.settings, config.training.seed)
        for name in STATE_SETTINGS if isinstance(states, ResponseStates) else ():
            value, default = getattr(config.training, name), getattr(TrainingSettings, name)
            if value != default:
                raise ValueError(
                    f"{name} is {value!r}, and objective {config.objective!r} makes its own states of trajectories; "
                    f"expected {default!r}"
                )

        # 2. The processes, and what an earlier one has left to go on from.
        accelerator = _accelerator(self.device, self.trackers)
        size = config.training.batch_size * config.training.accumulation * accelerator.num_processes
        values = self.values
        if config.teacher is not None:
            values = {**values, "teacher": dict(model_identity(config.teacher))}  # wherever it lies
            _check_teacher(config.teacher, config.model, trajectories)
            self.objective.check_model(load_config(config.teacher))
        run = run_values(values, trajectories, self.identity, size)
        checkpoint = None if config.overwrite else latest(self.output, run)
        check_same_everywhere(run, checkpoint)
        if accelerator.is_main_process:
            tried_folder(self.output)
            if self.output.is_dir():
                with sole_writer(self.output):
                    pass  # seen before a model is loaded

        # 3. The training, of which the first process writes everything down.
        trainer = Trainer(self._objective(accelerator), states, config.training, accelerator)
        for note in (*notes, f"training on {sum(states.counts)} states by the objective {config.objective}"):
            accelerator.print(note)
        if checkpoint is not None:
            restore(trainer, checkpoint)
            accelerator.print(f"going on from {checkpoint}")
        card = Card(
            settings=self.values,
            objective=self.objective.setting_names(),
            identity=self.identity,
            hub=hub_note(config.model).get("hub"),
            trajectories=trajectories,
            data=run["trajectories"],
            states=sum(states.counts),
        )
        started = time.perf_counter()
        with tracked(accelerator, self.values):
            if accelerator.is_main_process:
                history = _write_down(trainer, held_out, run, card, config)
            else:
                history = list(records(trainer, held_out, lambda _: None))
        seconds = time.perf_counter() - started
        accelerator.wait_for_everyone()
        folder = self.output / ADAPTER_FOLDER
        accelerator.print(f"adapter written to {folder} ({len(history)} steps, {seconds:.0f} s)")
        return TrainedAdapter(folder, history, seconds)

    def _objective(self, accelerator: Accelerator) -> Objective:
        """The objective of the model with its adapter, on the device of this process or spread over all."""
        config = self.config
        sharded = config.shard_model and accelerator.num_processes > 1
        place = torch.device("cpu") if sharded else accelerator.device
        model = load_model(config.model, dtype=config.dtype, device=place)
        if model.dtype not in (torch.float32, torch.bfloat16):
            raise ValueError(f"dtype {config.dtype!r} gives a model in {model.dtype}; expected float32 or bfloat16")
        if config.adapter is None:
            adapted = add_lora(model, **asdict(config.lora), seed=config.training.seed)
        else:
            adapted = load_adapter(model, config.adapter, allow_other_model=config.allow_other_model, trainable=True)
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(adapted)
        teacher = None
        if config.teacher is not None:
            teacher = load_model(config.teacher, dtype=model.dtype, device=place).requires_grad_(False)
        objective = self.objective(adapted, self.settings, teacher)
        if sharded:
            for one in filter(None, (adapted, teacher)):
                shard_frozen_layers(one, accelerator.device)
            keep_out_of_ddp(objective)
        return objective


def _accelerator(device: torch.device, trackers: Mapping[str, Any]) -> Accelerator:
    """Of this process; ValueError for plugins under which the loop would train something else, or nothing."""
    for plugin in ("DeepSpeed", "FSDP", "Megatron_LM"):
        if os.environ.get(f"ACCELERATE_USE_{plugin.upper()}", "").lower() in ("1", "true", "yes"):
            raise ValueError(
                f"accelerate's {plugin} plugin is on: expected processes without a plugin, as torchrun starts them, "
                f"or accelerate by tad_ext/configs/accelerate/8-gpus.yaml; shard_model spreads the model over them"
            )
    if device.type == "cuda":
        torch.cuda.set_device(device)  # the GPU that accelerate means by "cuda"
    ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True)  # no second copy of the gradients
    return Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[ddp], **trackers)


def _check_teacher(teacher: str, model: str, trajectories: Sequence[Trajectory]) -> None:
    """ValueError for a checkpoint that reads other ids than the model, or cannot read the trajectories."""
    theirs, own = load_config(teacher), load_config(model)
    for what, one, other in (
        ("vocab_size", theirs.vocab_size, own.vocab_size),
        ("tokenizer of hash", tokenizer_hash(load_tokenizer(teacher)), tokenizer_hash(load_tokenizer(model))),
    ):
        if one != other:
            raise ValueError(f"teacher {teacher!r} has {what} {one}, the model's is {other}; expected the same")
    for trajectory in trajectories:
        for fault in misfits(trajectory, theirs, prompts=("teacher_prompt_ids",)):
            raise ValueError(f"teacher {teacher!r} does not fit trajectory {trajectory.id!r}: {fault}")


def _objective_settings(objective: type[Objective], values: Mapping[str, Any]) -> Any:
    """The objective's own, among others."""
    return objective.Settings(**{name: values[name] for name in objective.setting_names()})


def used_settings(config: AdapterRunSettings) -> dict[str, Any]:
    """All settings but those that other objectives have and the chosen one has not, or that an adapter to start from
    has itself; ValueError if one of these was given."""
    objective, values = objective_class(config.objective), values_of(config)
    asks = bool(objective.asks(_objective_settings(objective, values)))
    of_teachers = {"teacher": asks, "teacher_prompt": asks and objective.privileged}
    own = {*objective.setting_names(), *(name for name, has in of_teachers.items() if has)}
    for option in options_of(type(config)):
        is_of_all = option.group in ("", "training", "evaluation") and option.name not in of_teachers
        is_of_adapter = option.group == "lora"
        if is_of_all or option.name in own or (is_of_adapter and config.adapter is None):
            continue
        del values[option.name]
        value = getattr(getattr(config, option.group) if option.group else config, option.name)
        if option.name in config.given or value != option.default:
            reason = f"objective {config.objective!r} has no such setting"
            if option.name in of_teachers and not asks:
                reason = f"objective {config.objective!r} asks no teacher"
            if is_of_adapter:
                reason = f"the adapter to start from, {config.adapter!r}, has its own, so leave it out"
            raise ValueError(f"{option.name} is {value!r}; {reason}")
    return values


def _write_down(
    trainer: Trainer, held_out: HeldOut | None, run: dict[str, Any], card: Card, config: AdapterRunSettings
) -> list[StepRecord]:
    """All records of the training, during and after which its files are written."""
    output, objective = output_folder(config.output), trainer.objective
    earlier = _earlier_files(output) if config.overwrite else ()
    with sole_writer(output), successor(output, earlier) as folder:
        progress = Progress(folder, trainer, run, card, keep=config.keep_checkpoints)
        (folder / NOT_FINITE_FILE).unlink(missing_ok=True)
        try:
            for record in records(trainer, held_out, progress.measured):
                progress.add(record)
                if config.save_every and record.step % config.save_every == 0 and record.step < trainer.total_steps:
                    progress.save()
        except NotFiniteError as error:
            write_json(folder / NOT_FINITE_FILE, [_described(sample) for sample in error.samples])
            error.add_note(f"the states of this step are named in {folder / NOT_FINITE_FILE}")
            raise
        except BaseException as error:  # a signal, another rank that is gone, a device that fails
            with shielded():
                try:
                    progress.save()
                except Exception as second:
                    told = [f"no checkpoint was written ({second})", *getattr(second, "__notes__", [])]
                    error.add_note("; ".join(told))
            if left := checkpoints(folder):
                changed = f", with output {folder} and without overwrite," if earlier else ""
                error.add_note(f"the same command{changed} goes on from {left[-1].name}")
            raise
        history = progress.history
        save = partial(save_adapter, objective.model, also=progress.write_card)
        with shielded():  # a signal waits: from here on there is no other copy
            if (folder / ADAPTER_FOLDER).exists():  # of this run, killed behind its last step
                remove_folder(folder / ADAPTER_FOLDER)
            rescued(save, folder / ADAPTER_FOLDER)  # what it was for comes first
            report = {"settings": used_settings(config), "steps": [asdict(record) for record in history]}
            write_json(folder / HISTORY_FILE, report)
            write_curve(folder / CURVE_FILE, history, objective.parts)
            (folder / STEPS_FILE).unlink()
    return history


def _described(sample: Sample) -> dict[str, Any]:
    """Which state it is."""
    state = sample.state
    entries = int(state.is_entry.sum())
    name = {name: getattr(state.trajectory, name) for name in ("task", "id", "sample")}
    return {**name, "entries": entries, "canvas": state.canvas.tolist()}


def _earlier_files(output: Path) -> list[Path]:
    """What an earlier run left in the folder."""
    names = (HISTORY_FILE, CURVE_FILE, STEPS_FILE, SPEED_FILE, EVALUATIONS_FILE, BEST_FOLDER, NOT_FINITE_FILE)
    files = [output / name for name in names]
    return [path for path in [output / ADAPTER_FOLDER, *checkpoints(output), *files] if path.exists()]
