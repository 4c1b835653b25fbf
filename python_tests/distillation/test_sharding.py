"""Two processes that hold half of every layer each train as two do that hold the whole model."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distillation_worker import Worker

from tad_ext.distillation import checkpoints
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker()


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_checkpointing": True},
        {"dtype": "bfloat16"},
        {"use_dora": True},
        {"objective": "d2f", "causal_block_length": 4},
    ],
    ids=["plain", "checkpointing", "bfloat16", "dora", "d2f"],
)
def test_the_same_adapter_bit_for_bit(
    job: Callable[..., DistillConfig], tmp_path: Path, worker: Worker, changes: dict[str, Any]
) -> None:
    settings = job(**{"max_steps": 6, "dropout": 0.2, "batch_size": 2, "accumulation": 2} | changes)
    whole = dataclasses.replace(settings, output=str(tmp_path / "whole"), gradient_checkpointing=False)
    sharded = dataclasses.replace(settings, output=str(tmp_path / "sharded"), shard_model=True)
    assert worker.run(whole, ranks=2) == worker.run(sharded, ranks=2) == [0, 0]
    assert weights(tmp_path / "sharded") == weights(tmp_path / "whole")


def test_a_sharded_training_goes_on_whole(job: Callable[..., DistillConfig], tmp_path: Path, worker: Worker) -> None:
    settings = job(max_steps=8, dropout=0.2, batch_size=2, accumulation=1)
    assert worker.run(dataclasses.replace(settings, output=str(tmp_path / "whole")), ranks=2) == [0, 0]
    stopped = dataclasses.replace(settings, output=str(tmp_path / "stopped"), shard_model=True)
    assert 0 not in worker.run(stopped, ranks=2, stop_at=4)
    assert [path.name for path in checkpoints.checkpoints(tmp_path / "stopped")] == ["checkpoint-000004"]
    assert worker.run(dataclasses.replace(stopped, shard_model=False), ranks=2) == [0, 0]
    assert weights(tmp_path / "stopped") == weights(tmp_path / "whole")


def test_one_process_has_nothing_to_shard(job: Callable[..., DistillConfig], tmp_path: Path) -> None:
    for name in ("whole", "sharded"):
        distill(job(max_steps=2, output=str(tmp_path / name), shard_model=name == "sharded"))
    assert weights(tmp_path / "sharded") == weights(tmp_path / "whole")
