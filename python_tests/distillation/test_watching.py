"""What is watched of a training beside its loss is right, and changes nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation import Objective, TADObjective, TADSettings
from tad_ext.distillation.d2f import D2FObjective
from tad_ext.distillation.samples import MicroBatch
from tad_ext.distillation.settings import D2FSettings
from tad_ext.distillation.speed import Speed
from tad_ext.distillation.watching import watched_means, watched_sums
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.models.lora import add_lora

MASK, CPU = 23, torch.device("cpu")
NUMBERS = [0, 9, 18, 31]


def batches_of(objective: Objective, trajectories: Any, *cut: list[int]) -> list[MicroBatch]:
    states = TrajectoryStates(trajectories, mask_token_id=MASK)
    return [
        MicroBatch.of(objective.samples([states[number] for number in numbers], 0.0), objective.asks_teacher)
        for numbers in cut
    ]


def watched(objective: Objective, batches: list[MicroBatch]) -> dict[str, dict[str, float]]:
    return watched_means(objective.sides, watched_sums(objective, batches, CPU))


@torch.no_grad()
def test_means_over_the_entries_of_each_side(
    make_adapted: Callable[[], Any], make_trajectories: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against float64, state by state; micro-batches and pieces of logits that are cut otherwise."""
    objective, trajectories = TADObjective(make_adapted(), TADSettings(delta=3)), make_trajectories()
    found: dict[str, list[list[float]]] = {"near": [], "distant": []}
    for number in NUMBERS:
        trajectory, step = trajectories[number // 8], number % 8
        ids = np.append(trajectory.prompt_ids, trajectory.canvas_at(step, MASK))
        logits = objective.diffusion_model(torch.tensor(ids)[None]).logits[0, len(trajectory.prompt_ids) :]
        for row, label, left in zip(
            logits.softmax(-1), trajectory.response_ids, trajectory.steps_to_reveal(step), strict=True
        ):
            if left > 0:
                numbers = [float(row.max()), float(row[label]), float(-(row * row.log()).sum())]
                found["near" if left <= 3 else "distant"].append(numbers)
    names = ("confidence", "label_probability", "entropy")
    expected = {side: dict(zip(names, np.mean(rows, axis=0), strict=True)) for side, rows in found.items()}
    for cut in ([NUMBERS], [NUMBERS[:1], NUMBERS[1:]]):
        for rows in (256, 5):
            monkeypatch.setattr("tad_ext.distillation.watching._ROWS", rows)
            means = watched(objective, batches_of(objective, trajectories, *cut))
            assert means.keys() == expected.keys()
            for side, values in means.items():
                assert values == pytest.approx(expected[side], rel=1e-5)


@torch.no_grad()
def test_a_student_that_attends_block_causally(make_adapted: Callable[[], Any], make_trajectories: Any) -> None:
    settings = D2FSettings(causal_block_length=2)
    objective, trajectories = D2FObjective(make_adapted(), settings), make_trajectories()
    recorded = TrajectoryStates(trajectories, mask_token_id=MASK)
    states = D2FObjective.states(recorded, settings, 0)
    batch = objective.micro_batch(objective.samples([states.at(number, 0.0) for number in range(4)], 0.0))
    model = objective.diffusion_model
    seen, blind = (
        model.lm_head(model.hidden_rows(**batch.student._asdict(), blocks=blocks)).softmax(-1).amax(-1).mean()
        for blocks in (batch.blocks, None)
    )
    found = watched(objective, [batch])["entries"]["confidence"]
    assert found == pytest.approx(float(seen), rel=1e-5)
    assert found != pytest.approx(float(blind), rel=1e-3)


def test_logits_exist_for_some_entries_at_a_time(
    make_adapted: Callable[[], Any], make_trajectories: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = TADObjective(make_adapted(), TADSettings(delta=3))
    monkeypatch.setattr("tad_ext.distillation.watching._ROWS", 5)
    shapes = []
    objective.diffusion_model.lm_head.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape)))
    watched(objective, batches_of(objective, make_trajectories(), NUMBERS))
    assert sum(rows for rows, _ in shapes) == 8 + 7 + 6 + 1
    assert max(rows for rows, _ in shapes) == 5


def test_a_side_without_entries_has_no_mean(make_adapted: Callable[[], Any], make_trajectories: Any) -> None:
    objective = TADObjective(make_adapted(), TADSettings(delta=3))
    (nearly_done,) = batches_of(objective, make_trajectories(), [7, 15])
    assert watched(objective, [nearly_done]).keys() == {"near"}
    assert watched(objective, [nearly_done.without_entries()]) == {}


def test_it_leaves_modes_and_random_numbers_alone(make_model: Callable[..., Any], make_trajectories: Any) -> None:
    adapted = add_lora(make_model(), rank=4, alpha=8, dropout=0.5, target_modules=["q_proj"])
    torch.nn.init.normal_(next(one for name, one in adapted.named_parameters() if "lora_B" in name))
    objective = TADObjective(adapted, TADSettings(delta=3)).train()
    modes, random = [module.training for module in objective.modules()], torch.get_rng_state()
    batches = batches_of(objective, make_trajectories(), [0, 1])
    assert watched(objective, batches) == watched(objective, batches)  # no dropout
    assert modes == [module.training for module in objective.modules()]
    assert torch.equal(random, torch.get_rng_state())


def test_watching_does_not_change_the_training(job: Callable[..., DistillConfig], tmp_path: Path) -> None:
    results = {}
    for every in (0, 1, 3):
        output = tmp_path / str(every)
        history = distill(job(max_steps=7, dropout=0.3, log_every=every, output=str(output))).history
        results[every] = (output / "adapter" / "adapter_model.safetensors").read_bytes()
        seen = [record.step for record in history if record.watched]
        assert seen == ([] if every == 0 else list(range(every, 8, every)))
    assert results[0] == results[1] == results[3]


def test_what_is_watched_is_of_the_whole_step_before_its_update(
    job: Callable[..., DistillConfig], make_trajectories: Any, make_model: Any
) -> None:
    """All 32 states in eight micro-batches of one step: the base model's, as a fresh adapter does nothing."""
    (record,) = distill(job(max_steps=1, log_every=1, batch_size=4, accumulation=8)).history
    adapted = add_lora(make_model(), rank=4, alpha=8, target_modules=["q_proj"])
    objective = TADObjective(adapted, TADSettings(delta=3))
    expected = watched(objective, batches_of(objective, make_trajectories(), list(range(32))))
    for side in ("near", "distant"):
        assert record.watched[side] == pytest.approx(expected[side], rel=1e-5)


def test_speed(make_trajectories: Any) -> None:
    states = TrajectoryStates(make_trajectories(), mask_token_id=MASK)
    samples: Any = [SimpleNamespace(state=states[number]) for number in (0, 9)]
    found = Speed.of(samples, 4.0, CPU)
    tokens = sum(len(trajectory.prompt_ids) + 8 for trajectory in make_trajectories()[:2])
    assert (found.states_per_second, found.tokens_per_second) == (0.5, tokens / 4)
    assert found.peak_memory_gb == pytest.approx(_resident_set(), rel=0.5)
    assert found.shown().keys() == {"states/s", "tokens/s", "GB"}


def _resident_set() -> float:
    """The highest one so far, in 10^9 bytes, as the kernel's text says."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e9


def test_every_step_s_speed_is_written_down_and_shown(
    job: Callable[..., DistillConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    config = job(max_steps=3)
    distill(config)
    rows = [json.loads(line) for line in (Path(config.output) / "speed.jsonl").read_text().splitlines()]
    assert [row.pop("step") for row in rows] == [1, 2, 3]
    assert all(row.keys() == {"states_per_second", "tokens_per_second", "peak_memory_gb"} for row in rows)
    assert all(value > 0 for row in rows for value in row.values())
    line = capsys.readouterr().err
    assert all(f"{name}=" in line for name in ("loss", "ce", "kl", "states/s", "tokens/s", "GB"))
