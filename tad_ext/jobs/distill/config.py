"""The settings of `tad distill`; the defaults are those published for TAD (arXiv 2605.09536)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tad_ext.distillation.settings import (
    OBJECTIVES,
    CertaintySettings,
    D3LLMSettings,
    DParallelSettings,
    SFTSettings,
    TADSettings,
    TrainingSettings,
)
from tad_ext.jobs.common import TrajectorySettings
from tad_ext.settings import Between, Count, Device, DType, EosTail, Index, PathText, Positive, group, setting


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

    objective: str = setting(
        "tad", help=f"what is learnt: {', '.join(OBJECTIVES)}; it refuses settings that only others have"
    )
    loss: TADSettings = group(TADSettings)
    sft: SFTSettings = group(SFTSettings)
    dparallel: DParallelSettings = group(DParallelSettings)
    d3llm: D3LLMSettings = group(D3LLMSettings, without=tuple(CertaintySettings.__dataclass_fields__))

    rank: Count = setting(128, help="rank of the LoRA adapter")
    alpha: Positive = setting(128.0, help="scale of the adapter; its output is multiplied by alpha / rank")
    dropout: Annotated[float, Between(0, below=1)] = setting(0.05, help="dropout on the adapter's input")
    target_modules: tuple[str, ...] = setting(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        help="names of the linear layers to adapt; each must exist in the model",
    )

    training: TrainingSettings = group(TrainingSettings)
    save_every: Index = setting(
        500, help="also save adapter and optimizer every so many optimizer steps, to go on from; 0: only when stopped"
    )
    keep_checkpoints: Index = setting(2, help="how many of these stay, the latest ones; 0: all")
    overwrite: bool = setting(False, help="replace the adapter and checkpoints in output once this run is complete")
    device: Device = setting("auto", help="auto, cpu, cuda or cuda:N; with several processes, each has its own GPU")
    dtype: DType = setting("auto", help="of the frozen model, auto: as stored; the adapter is float32")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}")
        if not self.target_modules:
            raise ValueError("target_modules must name at least one linear layer, got an empty list")
