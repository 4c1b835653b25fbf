"""Which GPU a training runs on: one process is told its number, several share out theirs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tad_ext.distillation import adapter_run as trainer_module
from tad_ext.jobs.common import place_of_process
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.sharing.work import Place


class ReachedError(Exception):
    """As far as a machine without a GPU comes."""


@pytest.fixture(autouse=True)
def two_gpus(job: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What torch and then accelerate are told, once the model is written."""
    told: list[Any] = []

    def accelerator(kwargs_handlers: Any, **options: Any) -> None:
        told.append(options)
        raise ReachedError

    for name in ("LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", told.append)
    monkeypatch.setattr(trainer_module, "Accelerator", accelerator)
    return told


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("cuda:1", [torch.device("cuda", 1), {"cpu": False, "mixed_precision": "no"}]),
        ("cuda", [torch.device("cuda", 0), {"cpu": False, "mixed_precision": "no"}]),
        ("auto", [torch.device("cuda", 0), {"cpu": False, "mixed_precision": "no"}]),
        ("cpu", [{"cpu": True, "mixed_precision": "no"}]),
    ],
)
def test_one_process_trains_on_the_device_that_is_named(
    job: Callable[..., DistillConfig], two_gpus: list[Any], device: str, told: list[Any]
) -> None:
    with pytest.raises(ReachedError):
        distill(job(device=device))
    assert two_gpus == told


def test_a_gpu_that_is_not_there_is_named(job: Callable[..., DistillConfig]) -> None:
    with pytest.raises(ValueError, match=r"device must .*'cuda:2'"):
        distill(job(device="cuda:2"))


@pytest.mark.parametrize(
    "variables", [{"WORLD_SIZE": "2", "LOCAL_RANK": "1"}, {"LOCAL_RANK": "0"}, {"LOCAL_RANK": "3", "WORLD_SIZE": "4"}]
)
def test_several_processes_are_not_told_a_number(
    job: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch, two_gpus: list[Any], variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    config = job(device="cuda:1", trajectories=("not looked at",))
    message = "^device is 'cuda:1' under torchrun or accelerate, .* expected auto, cpu or cuda$"
    with pytest.raises(ValueError, match=message):
        distill(config)
    assert two_gpus == []
    with pytest.raises(ReachedError):
        distill(job(device="cuda"))
    assert two_gpus[0] == torch.device("cuda", int(variables["LOCAL_RANK"]) % 2)  # as accelerate shares out those seen


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_every_rank_collects_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert place_of_process(device) == (Place(1, 2), "cuda:1")
    with pytest.raises(ValueError, match=r"^device is .cuda:0. under torchrun"):
        place_of_process("cuda:0")
