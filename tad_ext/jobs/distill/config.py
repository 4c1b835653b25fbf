"""The settings of `tad distill`; the defaults are those published for TAD (arXiv 2605.09536)."""

from dataclasses import dataclass
from typing import Literal

from tad_ext.distillation.run_settings import AdapterRunSettings
from tad_ext.distillation.settings import (
    CD4LMSettings,
    CertaintySettings,
    D2FSettings,
    D3LLMSettings,
    DOPSDSettings,
    DParallelSettings,
    OPUTSettings,
    SFTSettings,
    TADSettings,
)
from tad_ext.jobs.common import KeptTrajectorySettings
from tad_ext.settings import PathText, group, setting


@dataclass(frozen=True, kw_only=True)
class DistillConfig(AdapterRunSettings, KeptTrajectorySettings):
    """Step 2 of the method. At random states of the trajectories, tokens that the teacher reveals within the next delta
    steps are learned by cross-entropy, later ones by the divergence from the teacher's own distribution. The teacher is
    the same model with its adapter switched off. A small delta favours accuracy, a large one speed. The defaults are
    the published ones, made for models of billions of parameters.
    """

    summary = "train a LoRA adapter on trajectories with the TAD loss"
    example = "tad distill --model runs/base --trajectories runs/trajectories --output runs/distill --delta 8"
    shared = True

    trajectories: tuple[PathText, ...] = setting(help="folders of trajectory files, trained on together")
    teacher_prompt: Literal["collected", "system", "none"] = setting(
        "collected",
        help="what the teacher sees: collected (the prompt that it decoded from), system (the student's, with the "
        "reference in a system message before it, as published for training) or none (the student's alone)",
    )

    loss: TADSettings = group(TADSettings)
    sft: SFTSettings = group(SFTSettings)
    dparallel: DParallelSettings = group(DParallelSettings)
    d3llm: D3LLMSettings = group(D3LLMSettings, without=tuple(CertaintySettings.__dataclass_fields__))
    d2f: D2FSettings = group(D2FSettings)
    oput: OPUTSettings = group(OPUTSettings)
    d_opsd: DOPSDSettings = group(DOPSDSettings)
    cd4lm: CD4LMSettings = group(CD4LMSettings)
