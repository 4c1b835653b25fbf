"""Experiment trackers: those that are not installed are refused; the others get every number of every step."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from tad_ext.distillation import adapter_run
from tad_ext.jobs.distill import run
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill

INSTALLED = set(map(str, get_available_trackers()))


class Notebook(GeneralTracker):
    """A tracker of one's own."""

    name = "notebook"
    requires_logging_directory = False
    pages: ClassVar[list[Any]] = []

    def __init__(self, project: str, **_: Any) -> None:
        super().__init__()
        self.pages.append(project)

    @property
    def tracker(self) -> list[Any]:
        return self.pages

    def start(self) -> None:
        self.pages.append("started")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.pages.append(values)

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self.pages.append((step, values))

    def finish(self) -> None:
        self.pages.append("finished")


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "notebook", Notebook)
    monkeypatch.setattr(Notebook, "pages", [])
    return Notebook.pages


@pytest.mark.parametrize("name", sorted(set(LOGGER_TYPE_TO_CLASS) - INSTALLED))
def test_one_that_is_not_installed_is_refused_before_any_work(
    job: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(adapter_run, "load_model", None)
    monkeypatch.setattr(run, "read_trajectories", None)
    config = job(tracker=(name,))
    with pytest.raises(ValueError, match=f"tracker holds '{name}', whose package is not installed: pip install {name}"):
        distill(config)
    assert not Path(config.output).exists()


@pytest.mark.parametrize("name", ["tensorbored", "all"])
def test_one_that_nobody_knows_is_refused(job: Callable[..., DistillConfig], name: str) -> None:
    with pytest.raises(ValueError, match=rf"tracker holds '{name}'; expected some of .*tensorboard, .*wandb"):
        distill(job(tracker=(name,)))


def test_it_gets_settings_and_every_number(job: Callable[..., DistillConfig], notebook: list[Any]) -> None:
    result = distill(job(tracker=("notebook",), max_steps=3, log_every=2))
    project, started, settings, *steps, finished = notebook
    assert (project, started, finished) == ("tad-training", "started", "finished")
    assert (settings["delta"], settings["max_steps"], settings["delta_start"]) == (3, 3, "none")
    assert [step for step, _ in steps] == [1, 2, 3]
    for (_, values), record in zip(steps, result.history, strict=True):
        expected = asdict(record)
        assert values["loss"] == expected["loss"]
        assert (values["parts/ce"], values["parts/kl"]) == (record.parts["ce"], record.parts["kl"])
        assert values["totals/near"] == record.totals["near"]
        assert values["speed/tokens_per_second"] > 0
        assert ("watched/near/confidence" in values) == (record.step == 2)
        assert all(isinstance(value, int | float) for value in values.values())
    assert steps[1][1]["watched/distant/entropy"] == result.history[1].watched["distant"]["entropy"]


def test_it_is_ended_when_the_training_fails(job: Callable[..., DistillConfig], notebook: list[Any]) -> None:
    with pytest.raises(FloatingPointError):
        distill(job(tracker=("notebook",), learning_rate=1e30, max_grad_norm=0.0, max_steps=50))
    assert notebook[-1] == "finished"


@pytest.mark.skipif("tensorboard" not in INSTALLED, reason="tensorboard is not installed")
def test_tensorboard_shows_the_losses(job: Callable[..., DistillConfig]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = job(tracker=("tensorboard",), max_steps=3, log_every=1)
    history = distill(config).history
    shown = EventAccumulator(str(Path(config.output, "tad-training"))).Reload()
    for name, values in {
        "loss": [record.loss for record in history],
        "parts/kl": [record.parts["kl"] for record in history],
        "watched/near/label_probability": [record.watched["near"]["label_probability"] for record in history],
    }.items():
        found = shown.Scalars(name)
        assert [event.step for event in found] == [1, 2, 3]
        assert [event.value for event in found] == pytest.approx(values, rel=1e-6)
