"""Settings of `tad distill`; the defaults are those published for TAD (arXiv 2605.09536)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from tad_ext.decoding.checks import MAX_COUNT, MAX_RATE, MAX_SCALE, MAX_SEED, check_at_most
from tad_ext.distillation.registry import OBJECTIVES, objective_class

LR_SCHEDULES = ("constant", "linear")


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass
class DistillConfig:
    """Settings of `distill`. `validate` checks every one of them, naming the field, its value and what was expected."""

    model: str = field(metadata=_help("folder of the model to train; with its adapter off it is also the teacher"))
    trajectories: str = field(metadata=_help("folder of trajectory files written by tad collect"))
    output: str = field(metadata=_help("folder to write the adapter, the checkpoints and the loss curve into"))

    keep: str = field(
        default="correct",
        metadata=_help("which trajectories to train on: correct, as published, or all that the folder holds"),
    )

    objective: str = field(
        default="tad",
        metadata=_help(f"what is learnt: {', '.join(OBJECTIVES)}; delta to normalization are settings of tad"),
    )
    delta: int = field(
        default=8, metadata=_help("entries revealed within this many steps are near (CE), later ones distant (KL)")
    )
    ce_weight: float = field(default=1.0, metadata=_help("weight of the cross-entropy on near entries"))
    kl_weight: float = field(default=1.0, metadata=_help("weight of the KL divergence on distant entries"))
    temperature: float = field(default=1.0, metadata=_help("temperature of both distributions in the KL divergence"))
    normalization: str = field(
        default="micro_batch",
        metadata=_help(
            "what the means are over: micro_batch (as published), tokens (the global batch) or state (each state)"
        ),
    )

    rank: int = field(default=128, metadata=_help("rank of the LoRA adapter"))
    alpha: float = field(
        default=128.0, metadata=_help("scale of the adapter; its output is multiplied by alpha / rank")
    )
    dropout: float = field(default=0.05, metadata=_help("dropout on the adapter's input"))
    target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        metadata=_help("names of the linear layers to adapt; each must exist in the model"),
    )

    learning_rate: float = field(default=2e-5, metadata=_help("AdamW's learning rate"))
    weight_decay: float = field(default=0.01, metadata=_help("AdamW's weight decay"))
    warmup_steps: int = field(default=0, metadata=_help("optimizer steps over which the learning rate rises linearly"))
    lr_schedule: str = field(
        default="constant", metadata=_help("after the warmup: constant, or linear (falls to 0 at the end)")
    )
    max_grad_norm: float = field(
        default=1.0, metadata=_help("gradients are scaled down to this norm; 0: they are left alone")
    )
    epochs: int = field(default=1, metadata=_help("passes over all states of all trajectories"))
    max_steps: int | None = field(
        default=None, metadata=_help("train for exactly this many optimizer steps instead of epochs")
    )
    batch_size: int = field(default=4, metadata=_help("states in a micro-batch, per device"))
    accumulation: int = field(default=8, metadata=_help("micro-batches per device in one optimizer step"))

    seed: int = field(
        default=0, metadata=_help("of the order of the states, the adapter's first weights and the dropout")
    )
    save_every: int = field(
        default=0, metadata=_help("also save the adapter every so many optimizer steps; 0: at the end only")
    )
    overwrite: bool = field(
        default=False,
        metadata=_help("replace the adapter and checkpoints that output holds, once this run is complete"),
    )
    device: str = field(default="auto", metadata=_help("auto, cpu or cuda"))
    dtype: str = field(
        default="auto",
        metadata=_help("of the frozen model: auto (the checkpoint's), float32 or bfloat16; the adapter is float32"),
    )

    @property
    def settings(self) -> Any:
        """The objective's `Settings`, from the fields of the same names. Raises ValueError if one is out of range."""
        settings = objective_class(self.objective).Settings
        names = {field.name for field in dataclasses.fields(settings)}
        return settings(**{name: value for name, value in vars(self).items() if name in names})

    def validate(self) -> None:
        """Raise a ValueError that names the first setting that is out of range."""
        _ = self.settings
        for name in ("model", "trajectories", "output"):
            if not getattr(self, name):
                raise ValueError(f"{name} must be the path of a folder, got {getattr(self, name)!r}")
        for name in ("rank", "epochs", "batch_size", "accumulation"):
            _check_integer(name, getattr(self, name), least=1)
        for name in ("warmup_steps", "save_every", "seed"):
            _check_integer(name, getattr(self, name), least=0)
        if self.max_steps is not None:
            _check_integer("max_steps", self.max_steps, least=1)
        for name in ("alpha", "learning_rate"):
            if not math.isfinite(getattr(self, name)) or getattr(self, name) <= 0:
                raise ValueError(f"{name} must be a finite number > 0, got {getattr(self, name)!r}")
        for name in ("weight_decay", "max_grad_norm"):
            if not math.isfinite(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be a finite number >= 0, got {getattr(self, name)!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout!r}")
        if not self.target_modules:
            raise ValueError("target_modules must name at least one linear layer, got an empty list")
        counts = ("rank", "epochs", "batch_size", "accumulation", "warmup_steps", "save_every", "max_steps")
        check_at_most(self, **dict.fromkeys(counts, MAX_COUNT), seed=MAX_SEED, learning_rate=MAX_RATE)
        check_at_most(self, **dict.fromkeys(("alpha", "weight_decay", "max_grad_norm"), MAX_SCALE))
        choices = {
            "keep": ("correct", "all"),
            "lr_schedule": LR_SCHEDULES,
            "device": ("auto", "cpu", "cuda"),
            "dtype": ("auto", "float32", "bfloat16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """The rate of the 0-based optimizer step `step` of `total_steps`; no step is wasted on a rate of 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.lr_schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (total_steps - step) / max(total_steps - self.warmup_steps, 1)


def _check_integer(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
