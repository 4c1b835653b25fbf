"""A new objective is a class and a line in the registry: the trainer asks nothing else of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from tad_ext.data.states import StateBatch, TrajectoryStates
from tad_ext.distillation import Objective
from tad_ext.distillation.settings import OBJECTIVES, objective_class
from tad_ext.distillation.trainer import shuffled
from tad_ext.jobs.distill import run as trainer_module
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.models.loading import load_model

MASK = 23


class PlainCrossEntropy(Objective):
    """Of all masked entries of the global batch."""

    parts: ClassVar[dict[str, str]] = {"ce": "CE of all entries, nats"}

    def forward(self, batch: StateBatch, totals: Mapping[str, int]) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.diffusion_model.lm_head(self.diffusion_model.hidden_rows(**batch.student._asdict()))
        ce = cross_entropy(logits, batch.labels, reduction="sum") / totals["entries"]
        return ce, {"ce": ce}


def test_every_name_is_the_class_of_an_objective() -> None:
    for name in OBJECTIVES:
        assert issubclass(objective_class(name), Objective)
        assert objective_class(name).parts
    with pytest.raises(ValueError, match="objective must be one of tad, got 'dpo'"):
        objective_class("dpo")


def test_a_new_objective_is_trained_by_its_name(
    job: Callable[..., DistillConfig], make_trajectories: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Mapping[str, str]] = []
    draw = trainer_module._write_curve

    def remember(path: Path, history: Any, labels: Mapping[str, str]) -> None:
        drawn.append(labels)
        draw(path, history, labels)

    monkeypatch.setattr(trainer_module, "_write_curve", remember)
    monkeypatch.setitem(OBJECTIVES, "plain", f"{__name__}:PlainCrossEntropy")
    config = job(objective="plain", max_steps=2, batch_size=3, accumulation=2, dropout=0.0)
    result = distill(config)

    # The first step is of the base model, since a fresh adapter does nothing: the same number, state by state.
    states, model = TrajectoryStates(make_trajectories(), mask_token_id=MASK), load_model(config.model)
    losses = []
    chosen = shuffled(len(states), seed=config.training.seed, epoch=0).tolist()[:6]
    for state in (states[index] for index in chosen):
        with torch.no_grad():
            logits = model(torch.tensor(np.append(state.trajectory.prompt_ids, state.canvas))[None]).logits[0]
        masked = torch.from_numpy(state.steps_to_reveal > 0)
        response = torch.from_numpy(state.trajectory.response_ids).long()[masked]
        losses.append(cross_entropy(logits[len(state.trajectory.prompt_ids) :][masked], response, reduction="none"))
    first, second = result.history
    assert first.loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert first.totals == {"micro_batches": 2, "states": 6, "entries": len(torch.cat(losses))}
    assert second.loss != first.loss
    assert any(
        weight.any() for name, weight in load_file(result.adapter / "adapter_model.safetensors").items() if "_B" in name
    )

    report = json.loads((Path(config.output) / "training.json").read_text())
    assert report["settings"]["objective"] == "plain"
    assert [step["parts"] for step in report["steps"]] == [{"ce": first.loss}, {"ce": second.loss}]
    assert drawn == [PlainCrossEntropy.parts]
    assert (Path(config.output) / "loss.png").stat().st_size > 0
