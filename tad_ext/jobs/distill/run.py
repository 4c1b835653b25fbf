"""`tad distill`: trajectories and a model in, a LoRA adapter and its loss curve out."""

from dataclasses import replace
from typing import Any

import numpy as np

from tad_ext.data.tasks.prompts import with_system_reference
from tad_ext.data.trajectories.files import Trajectory, read_trajectories
from tad_ext.data.trajectories.fits import check_fits
from tad_ext.distillation.adapter_run import AdapterRun, TrainedAdapter
from tad_ext.jobs.common import held_out
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.models.identity import described, identity_differences
from tad_ext.models.loading import load_config, load_tokenizer


def distill(config: DistillConfig) -> TrainedAdapter:
    """Train a LoRA adapter on trajectories by an objective (`tad_ext.distillation.settings`).

    What it writes, how it goes on, what it raises: see `AdapterRun`; ValueError also for trajectories that do not fit
    the model, or that are of problems of the evaluation.
    """
    run = AdapterRun(config)
    runs, trajectories = read_trajectories(*config.trajectories)
    chosen = config.kept(trajectories)
    tokenizer, model_config = load_tokenizer(config.model), load_config(config.model)
    if config.teacher_prompt != "collected":
        chosen = [replace(one, teacher_prompt_ids=_teacher_prompt(one, config, tokenizer)) for one in chosen]
    check_fits(", ".join(config.trajectories), runs[0], chosen, model_config, tokenizer)
    notes = [f"{len(chosen)} trajectories, and {len(trajectories) - len(chosen)} wrong ones left out"]
    asked, decoded = run.values.get("hindsight_block_length"), {one.block_length for one in runs}
    if asked is not None and decoded != {asked}:
        notes.append(f"note: hindsight_block_length is {asked}; the trajectories' is {', '.join(map(str, decoded))}")
    for revision, name in {one.model_revision: one.model for one in runs}.items():
        if differing := identity_differences(revision, run.identity, config.model):
            notes.append(f"note: trajectories were collected with another model ({name}): {described(differing)}")
    return run.train(chosen, notes, held_out(config, chosen, tokenizer, model_config))


def _teacher_prompt(trajectory: Trajectory, config: DistillConfig, tokenizer: Any) -> np.ndarray:
    """What the teacher sees of a trajectory instead of the prompt that it was collected with."""
    own = trajectory.prompt_ids
    if config.teacher_prompt == "none":
        return own
    return np.array(with_system_reference(tokenizer, own.tolist(), trajectory.reference))
