"""The cells of the study: everything that is measured of one base model, and once more for each training seed.

Where trajectories come from and whether the teacher sees the reference in training are two things, and are crossed:

trajectories   "privileged"  decoded by the base that was shown the reference
               "own"         decoded by the base alone, and right
               "given"       no trajectories: the task's own right responses, as a data set holds them
teacher        shown the reference while the student is trained, or not

Cells stand in the order in which they are run: those of the paper's Table 3, 4, 1, and then 5 and 6.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .study import FEW, Study

Trajectories = Literal["privileged", "own", "given"]


@dataclass(frozen=True)
class Cell:
    """One measured model. Its training's `settings` are those of `tad distill`, by their names on the command line."""

    name: str
    title: str
    trajectories: Trajectories | None = None  #: None: the base itself, once for each base
    shown: bool = True  #: the teacher sees the reference in training
    settings: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)  #: those of `tad evaluate`, where they are its own
    decoded_by: Literal["entropy", "confidence"] = "entropy"
    prompt: Literal["student", "teacher"] = "student"  #: that the model is evaluated with

    @property
    def trained(self) -> bool:
        return self.trajectories is not None


#: Not a model's evaluation but two curves: see `measure.confidence`.
CONFIDENCE = "confidence"


#: What is asked where steps vary in length (`Study.short_share`): which delta is the best. 22 is near what the paper's
#: rule finds for the study's bases, 23 to 26; it was read off an earlier base, before anything was trained.
VARIED_CELLS = ("base", "tad", "tad_speed", "delta_2", "delta_16", "delta_22", "delta_22_light", "ce_all")

ONLY_VARIED = ("delta_22", "delta_22_light")  #: Of these, what no other study asks.

FEW_CELLS = ("base", "tad", "ce_near")  #: What is asked where there are few problems.


def cells(study: Study) -> dict[str, Cell]:
    """All of them by name."""
    # Blocks are the published shares of a decoding block: the whole one, from half to the whole, half.
    dparallel = {"objective": "dparallel", "block_length": 14}
    d3llm = {"objective": "d3llm", "block_lengths": (7, 7, 10, 10, 14, 14)}
    d2f, as_trained = {"objective": "d2f", "causal_block_length": 7}, {"block_length": 7, "block_causal": True}

    def tad(**changes: Any) -> dict[str, Any]:
        return {"objective": "tad", "delta": study.quality_delta, "normalization": study.normalization, **changes}

    def ablation(objective: str, **settings: Any) -> dict[str, Any]:
        return {"objective": objective, "normalization": study.normalization, **settings}

    every = [
        Cell("base", "base"),
        Cell("teacher", "teacher: the base, shown the reference", prompt="teacher"),
        # Table 3
        Cell("tad", "TAD: CE near, KL distant", "privileged", settings=tad()),
        Cell("ce_all", "CE everywhere", "privileged", settings=ablation("ce_all")),
        Cell("kl_all", "KL everywhere", "privileged", settings=ablation("kl_all")),
        Cell("ce_near", "CE near only", "privileged", settings=ablation("ce_near", delta=study.quality_delta)),
        # Table 4
        Cell("own_none", "TAD, own trajectories, plain teacher", "own", False, tad()),
        Cell("privileged_none", "TAD, privileged trajectories, plain teacher", "privileged", False, tad()),
        Cell("own_shown", "TAD, own trajectories, privileged teacher", "own", settings=tad()),
        Cell("sft_privileged", "random masks, privileged trajectories", "privileged", settings={"objective": "sft"}),
        Cell("sft_given", "SFT: random masks, given responses", "given"),
        # Table 1
        Cell("fast_dllm", "Fast-dLLM: the base, by confidence", decoded_by="confidence"),
        Cell("tad_speed", "TAD, speed", "privileged", settings=tad(delta=study.speed_delta)),
        Cell("dparallel", "dParallel", "own", settings=dparallel),
        Cell("d3llm", "d3LLM", "own", settings=d3llm),
        Cell("d2f", "D2F", "own", settings=d2f, decoding=as_trained),
        Cell("dparallel_privileged", "dParallel, privileged", "privileged", settings=dparallel),
        Cell("d3llm_privileged", "d3LLM, privileged", "privileged", settings=d3llm),
        Cell("d2f_privileged", "D2F, privileged", "privileged", settings=d2f, decoding=as_trained),
        # Table 5 and 6
        Cell("delta_2", "delta 2", "privileged", settings=tad(delta=2)),
        Cell("delta_16", "delta 16", "privileged", settings=tad(delta=16)),
        Cell("delta_22", "delta 22, near the paper's rule", "privileged", settings=tad(delta=22)),
        Cell("delta_22_light", "the same, kl_weight 0.05", "privileged", settings=tad(delta=22, kl_weight=0.05)),
        Cell("kl_weight_0.3", "kl_weight 0.3", "privileged", settings=tad(kl_weight=0.3)),
        Cell("kl_weight_3", "kl_weight 3", "privileged", settings=tad(kl_weight=3.0)),
    ]  # fmt: skip
    asked = [cell.name for cell in every if cell.name not in ONLY_VARIED]
    asked = VARIED_CELLS if study.short_share > 0 else FEW_CELLS if study == FEW else asked
    return {cell.name: cell for cell in every if cell.name in asked}
