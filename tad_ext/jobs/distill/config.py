"""The settings of `tad distill`; the defaults are those published for TAD (arXiv 2605.09536)."""

from dataclasses import dataclass
from typing import Literal

from tad_ext.distillation.lora_settings import LoRASettings
from tad_ext.distillation.settings import OBJECTIVES, TADSettings, TrainingSettings
from tad_ext.jobs.common import TrajectorySettings
from tad_ext.jobs.distill.evaluation_settings import EvaluationSettings
from tad_ext.settings import Device, DType, EosTail, Index, PathText, group, setting


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrajectorySettings):
    """Step 2 of the method. At random states of the trajectories, tokens that the teacher reveals within the next delta
    steps are learned by cross-entropy, later ones by the divergence from the teacher's own distribution. The teacher is
    the same model with its adapter switched off. A small delta favours accuracy, a large one speed. The defaults are
    the published ones, made for models of billions of parameters.
    """

    summary = "train a LoRA adapter on trajectories with the TAD loss"
    example = "tad distill --model runs/base --trajectories runs/trajectories --output runs/distill --delta 8"
    shared = True

    model: PathText = setting(help="folder of the model to train; with its adapter off it is also the teacher")
    trajectories: tuple[PathText, ...] = setting(help="folders of trajectory files, trained on together")
    output: PathText = setting(help="folder to write the adapter, the checkpoints and the loss curve into")
    keep: Literal["correct", "all"] = setting("correct", help="trajectories to train on: correct (as published) or all")

    teacher_prompt: Literal["collected", "system", "none"] = setting(
        "collected",
        help="what the teacher sees: collected (the prompt that it decoded from), system (the student's, with the "
        "reference in a system message before it, as published for training) or none (the student's alone)",
    )
    eos_tail: EosTail = setting(
        "all",
        help="what is learnt behind a response's first end-of-sequence token: all (as published), one (the next token) "
        "or none; states that then have nothing to learn are left out",
    )

    objective: str = setting("tad", help=f"what is learnt: {', '.join(OBJECTIVES)}; delta to normalization are tad's")
    loss: TADSettings = group(TADSettings)

    lora: LoRASettings = group(LoRASettings)
    adapter: PathText | None = setting(
        None, help="folder of an adapter to start from instead of a new one; its LoRA options are its own"
    )
    allow_other_model: bool = setting(False, help="start from it although it was trained on another base model")

    training: TrainingSettings = group(TrainingSettings)
    save_every: Index = setting(
        500, help="also save adapter and optimizer every so many optimizer steps, to go on from; 0: only when stopped"
    )
    keep_checkpoints: Index = setting(2, help="how many of these stay, the latest ones; 0: all")
    tracker: tuple[str, ...] | None = setting(
        None,
        help="experiment trackers to write every step to, as accelerate names them: tensorboard, wandb, mlflow, ...",
    )
    evaluation: EvaluationSettings = group(EvaluationSettings)
    overwrite: bool = setting(False, help="replace the adapter and checkpoints in output once this run is complete")
    device: Device = setting("auto", help="auto, cpu, cuda or cuda:N; with several processes, each has its own GPU")
    gradient_checkpointing: bool = setting(
        False, help="keep no activations inside of layers, compute them again in backward: less memory, slower"
    )
    shard_model: bool = setting(
        False, help="spread the frozen layers over the processes (FSDP2): less memory on each, more traffic"
    )
    dtype: DType = setting("auto", help="of the frozen model, auto: as stored; the adapter is float32")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}")
