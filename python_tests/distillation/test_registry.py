"""A new objective is a class and a line in the registry: the trainer asks nothing else of it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from tad_ext.cli import main
from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation import Objective
from tad_ext.distillation import adapter_run as trainer_module
from tad_ext.distillation.adapter_run import used_settings
from tad_ext.distillation.order import Order
from tad_ext.distillation.samples import MicroBatch
from tad_ext.distillation.settings import OBJECTIVES, TADSettings, objective_class
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.models.loading import load_model
from tad_ext.settings import options_of, values_of

MASK = 23


class PlainCrossEntropy(Objective):
    """Of all masked entries of the global batch."""

    parts: ClassVar[dict[str, str]] = {"ce": "CE of all entries, nats"}

    def forward(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        logits = self.diffusion_model.lm_head(self.diffusion_model.hidden_rows(**batch.student._asdict()))
        ce = (cross_entropy(logits, batch.labels, reduction="none") * batch.weight.float()).sum()
        return ce, {"ce": ce}


@dataclass(frozen=True)
class Warmth:
    temperature: float


class Tempered(PlainCrossEntropy):
    """Takes one of the settings that TAD takes."""

    Settings = Warmth


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two more objectives, and no model for anybody."""
    monkeypatch.setitem(OBJECTIVES, "plain", f"{__name__}:PlainCrossEntropy")
    monkeypatch.setitem(OBJECTIVES, "tempered", f"{__name__}:Tempered")
    monkeypatch.setattr(trainer_module, "load_model", None)


def test_every_name_is_the_class_of_an_objective() -> None:
    for name in OBJECTIVES:
        assert issubclass(objective_class(name), Objective)
        assert objective_class(name).parts
    with pytest.raises(ValueError, match=f"objective must be one of {', '.join(OBJECTIVES)}, got 'dpo'"):
        objective_class("dpo")


def test_a_new_objective_is_trained_by_its_name(
    job: Callable[..., DistillConfig], make_trajectories: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Mapping[str, str]] = []
    draw = trainer_module.write_curve

    def remember(path: Path, history: Any, labels: Mapping[str, str]) -> None:
        drawn.append(labels)
        draw(path, history, labels)

    monkeypatch.setattr(trainer_module, "write_curve", remember)
    monkeypatch.setitem(OBJECTIVES, "plain", f"{__name__}:PlainCrossEntropy")
    config = job(objective="plain", max_steps=2, batch_size=3, accumulation=2, dropout=0.0)
    result = distill(config)

    # The first step is of the base model, since a fresh adapter does nothing: the same number, state by state.
    states, model = TrajectoryStates(make_trajectories(), mask_token_id=MASK), load_model(config.model)
    losses = []
    chosen = Order(states.counts, config.training, 6).numbers(0).tolist()
    for state in (states[index] for index in chosen):
        with torch.no_grad():
            logits = model(torch.tensor(np.append(state.trajectory.prompt_ids, state.canvas))[None]).logits[0]
        masked = torch.from_numpy(state.steps_to_reveal > 0)
        response = torch.from_numpy(state.trajectory.response_ids).long()[masked]
        losses.append(cross_entropy(logits[len(state.trajectory.prompt_ids) :][masked], response, reduction="none"))
    first, second = result.history
    assert first.loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert first.totals == {"states": 6, "entries": len(torch.cat(losses))}
    assert second.loss != first.loss
    assert any(
        weight.any() for name, weight in load_file(result.adapter / "adapter_model.safetensors").items() if "_B" in name
    )

    report = json.loads((Path(config.output) / "training.json").read_text())
    assert report["settings"]["objective"] == "plain"
    assert "delta" not in report["settings"]
    assert [step["parts"] for step in report["steps"]] == [{"ce": first.loss}, {"ce": second.loss}]
    assert drawn == [PlainCrossEntropy.parts]
    assert (Path(config.output) / "loss.svg").stat().st_size > 0


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    ("objective", "given"),
    [
        ("plain", {"delta": 3}),
        ("plain", {"delta": TADSettings.delta}),  # as it would be anyway
        ("plain", {"temperature": 2.0}),
        ("plain", {"normalization": "state"}),
        ("plain", {"teacher_prompt": "system"}),
        ("tempered", {"temperature": 2.0, "ce_weight": 0.5}),
    ],
)
def test_a_setting_of_another_objective_is_refused_by_name(
    job: Callable[..., DistillConfig], objective: str, given: dict[str, Any]
) -> None:
    name, value = list(given.items())[-1]
    config = job(objective=objective, **given)
    reason = "asks no teacher" if name == "teacher_prompt" else "has no such setting"
    with pytest.raises(ValueError, match=rf"^{name} is {value!r}; objective '{objective}' {reason}"):
        distill(config)
    assert not Path(config.output).exists()


@pytest.mark.parametrize("objective", ["sft", "dparallel", "d3llm", "d2f", "oput", "cd4lm"])
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("state_ratio", 0.5, 1.0), ("state_sampling", "stratified", "uniform"), ("curriculum", "progress", "none")],
)
def test_a_choice_among_one_state_is_refused(
    job: Callable[..., DistillConfig], objective: str, name: str, value: Any, expected: Any
) -> None:
    message = f"^{name} is {value!r}, and objective '{objective}' makes its own states of .*; expected {expected!r}$"
    with pytest.raises(ValueError, match=message):
        distill(job(objective=objective, **{name: value}))


@pytest.mark.usefixtures("others")
def test_an_objective_takes_the_settings_that_it_has(job: Callable[..., DistillConfig]) -> None:
    config = job(objective="tempered", temperature=2.0)
    of_tad = {field.name for field in fields(TADSettings)} | {"teacher", "teacher_prompt"}
    groups = ("", "lora", "training", "evaluation")
    of_objectives = {option.name for option in options_of(DistillConfig) if option.group not in groups} | of_tad
    assert of_objectives > of_tad
    values = values_of(config)
    assert used_settings(config) == {
        name: value for name, value in values.items() if name not in of_objectives - {"temperature"}
    }
    with pytest.raises(ValueError, match=r"^delta is 3; objective 'tempered'"):
        used_settings(replace(config, loss=TADSettings(delta=3)))
    values = values_of(job(delta=8))
    assert used_settings(job(delta=8)) == {
        name: value for name, value in values.items() if name not in of_objectives - of_tad
    }


@pytest.mark.usefixtures("others")
def test_it_is_one_line_on_the_command_line(
    job: Callable[..., DistillConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = job(objective="plain")
    paths = [f"--{name}={getattr(config, name)}" for name in ("model", "trajectories", "output")]
    (tmp_path / "settings.yaml").write_text("delta: 8\n")
    for given in (["--delta", "8"], ["--config", str(tmp_path / "settings.yaml")]):
        assert main(["distill", *paths, "--objective", "plain", *given]) == 2
        error = "tad distill: error: delta is 8; objective 'plain' has no such setting\n"
        assert capsys.readouterr().err == error
