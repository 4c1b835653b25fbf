"""Training end to end on a tiny random model: it learns, leaves base and teacher alone, and repeats itself exactly."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distillation_worker import Worker
from peft import get_peft_model_state_dict
from safetensors.torch import load_file

from tad_ext import settings
from tad_ext.data.trajectories.files import read_parts, read_trajectories, write_part
from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation import TADObjective
from tad_ext.distillation import adapter_run as trainer_module
from tad_ext.distillation.order import Order
from tad_ext.distillation.samples import MicroBatch
from tad_ext.distillation.trainer import StepRecord
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.models.identity import identity_text, model_identity
from tad_ext.models.loading import load_model
from tad_ext.models.lora import add_lora, base_model, load_adapter, save_adapter, teacher

pytestmark = pytest.mark.slow

MASK = 23
IDS = torch.arange(24).reshape(2, 12) % 20


def entries(record: StepRecord) -> int:
    return record.totals["near"] + record.totals["distant"]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_trajectories_of_another_model_are_said_to_be(
    job: Callable[..., DistillConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    config = job(max_steps=1)
    (part,) = read_parts(config.trajectories[0])
    other = model_identity(config.model) | {"rms_norm_eps": 0.125}
    for identity, said in ((other, True), (model_identity(config.model), False)):
        metadata = replace(part.metadata, model_revision=identity_text(identity))
        write_part(part.path, metadata, part.trajectories)
        distill(replace(config, overwrite=True))
        note = "note: trajectories were collected with another model (runs/base): rms_norm_eps 0.125, this model's"
        assert (note in capsys.readouterr().out) == said


@pytest.mark.parametrize("form", ["collected", "none"])
def test_what_the_teacher_sees(job: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    seen: list[Any] = []

    def states(trajectories: Any, **options: Any) -> Any:
        seen.extend(trajectories)
        return TrajectoryStates(trajectories, **options)

    monkeypatch.setattr(trainer_module, "TrajectoryStates", states)
    config = job(max_steps=1, teacher_prompt=form)
    distill(config)
    _, collected = read_trajectories(*config.trajectories)
    for one, before in zip(seen, collected, strict=True):
        wanted = before.teacher_prompt_ids if form == "collected" else before.prompt_ids
        assert np.array_equal(one.teacher_prompt_ids, wanted)
        assert np.array_equal(one.prompt_ids, before.prompt_ids)


def test_a_system_message_needs_a_chat_template(job: Callable[..., DistillConfig]) -> None:
    with pytest.raises(ValueError, match="chat template"):
        distill(job(teacher_prompt="system"))


@torch.no_grad()
def test_training_lowers_the_loss_and_leaves_base_and_teacher_alone(
    job: Callable[..., DistillConfig], make_trajectories: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def remember(*args: Any, **kwargs: Any) -> Any:
        loaded.append(load_model(*args, **kwargs))
        return loaded[-1]

    monkeypatch.setattr(trainer_module, "load_model", remember)
    made = make_trajectories()
    for trajectory in made:
        trajectory.response_ids.fill(7)  # learnt in a few steps
    config = job(made, max_steps=12)
    with torch.enable_grad():
        result = distill(config)

    losses = [record.loss for record in result.history]
    assert len(losses) == 12
    assert sum(losses[-3:]) < 0.75 * sum(losses[:3])
    output = Path(config.output)
    parts = ["README.md", "adapter_config.json", "adapter_model.safetensors", "base_model.json"]
    assert files(output) == [*(f"adapter/{part}" for part in parts), "loss.svg", "speed.jsonl", "training.json"]
    assert result.adapter == output / "adapter"
    report = json.loads((output / "training.json").read_text())
    assert settings.made(DistillConfig, report["settings"]) == config
    assert report["steps"] == [asdict(record) for record in result.history]
    numbers = ["step", "epoch", "loss", "parts", "totals", "learning_rate", "grad_norm"]
    assert list(report["steps"][0]) == [*numbers, "watched"]
    assert result.history[3].epoch == 1.0

    base = load_model(config.model)
    trained = {name.replace(".base_layer", ""): weight for name, weight in loaded[0].named_parameters()}
    for name, weight in base.named_parameters():
        assert torch.equal(trained[name], weight), name
    before = base(IDS).logits
    adapted = load_adapter(base, result.adapter)
    assert not torch.equal(base_model(adapted)(IDS).logits, before)
    with teacher(adapted):
        assert torch.equal(base_model(adapted)(IDS).logits, before)


def test_the_same_settings_give_the_same_adapter_bit_for_bit(job: Callable[..., DistillConfig], tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second", "other")]
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        distill(job(max_steps=3, dropout=0.2, seed=seed, output=str(folder)))
        torch.manual_seed(99)  # whatever else drew random numbers must not matter
    first, second, other = ((folder / "adapter" / "adapter_model.safetensors").read_bytes() for folder in folders)
    assert first == second
    assert first != other


def test_a_step_is_adamw_on_clipped_gradients(job: Callable[..., DistillConfig], make_trajectories: Any) -> None:
    """The same three steps by hand, all 32 states at once."""
    numbers = {"learning_rate": 1e-2, "weight_decay": 0.5, "max_grad_norm": 0.05, "dropout": 0.0}
    config = job(batch_size=32, accumulation=1, epochs=3, warmup_steps=2, **numbers)
    result = distill(config)

    states = TrajectoryStates(make_trajectories(), mask_token_id=MASK)
    model = load_model(config.model)
    adapted = add_lora(
        model, rank=config.lora.rank, alpha=config.lora.alpha, target_modules=None, seed=config.training.seed
    )
    objective = TADObjective(adapted, config.loss)
    weights = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1.0, weight_decay=0.5)
    for epoch, rate in enumerate((0.5e-2, 1e-2, 1e-2)):
        numbers = Order(states.counts, config.training, 32).numbers(epoch).tolist()
        samples = objective.samples([states.at(number, 0.0) for number in numbers], 0.0)
        loss, _ = objective(MicroBatch.of(samples, objective.asks_teacher))
        gradients = torch.autograd.grad(loss, weights)
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient * min(1.0, 0.05 / float(norm))
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        assert result.history[epoch].loss == pytest.approx(loss.item(), rel=1e-4)
        assert result.history[epoch].grad_norm == pytest.approx(float(norm), rel=1e-3)
        assert result.history[epoch].learning_rate == rate
    assert float(norm) > 0.05
    found = load_file(result.adapter / "adapter_model.safetensors")
    expected = get_peft_model_state_dict(adapted)
    torch.testing.assert_close(found, dict(expected), rtol=1e-3, atol=1e-5)


def test_epochs_cover_every_state_and_checkpoints_are_kept(job: Callable[..., DistillConfig]) -> None:
    config = job(
        batch_size=3, accumulation=4, epochs=2, save_every=2, keep_checkpoints=0
    )  # 12 states a step: 3 steps an epoch, the last of 8
    result = distill(config)
    assert len(result.history) == 6
    for epoch in (result.history[:3], result.history[3:]):
        # 4 trajectories whose state s has 8 - s entries, of which at most delta = 3 are near
        assert sum(record.totals["near"] for record in epoch) == 4 * (6 * 3 + 2 + 1)
        assert sum(entries(record) for record in epoch) == 4 * 36
        assert [record.totals["states"] for record in epoch] == [12, 12, 8]
    assert [record.epoch for record in result.history] == [0.375, 0.75, 1, 1.375, 1.75, 2]
    assert {path.name for path in Path(config.output).iterdir()} == {
        "adapter", "checkpoint-000002", "checkpoint-000004", "loss.svg", "speed.jsonl", "training.json"
    }  # fmt: skip


@pytest.mark.parametrize("delta", [0, 50])
def test_training_with_one_side_only(job: Callable[..., DistillConfig], delta: int) -> None:
    history = distill(job(delta=delta, max_steps=2)).history
    for record in history[1:]:
        assert (record.parts["ce"] == 0, record.parts["kl"] == 0) == (delta == 0, delta == 50)


def test_a_bfloat16_base_keeps_a_float32_adapter(job: Callable[..., DistillConfig]) -> None:
    result = distill(job(dtype="bfloat16", max_steps=10))
    assert {tensor.dtype for tensor in load_file(result.adapter / "adapter_model.safetensors").values()} == {
        torch.float32
    }
    assert result.history[-1].loss < 0.9 * result.history[0].loss


def test_wrong_trajectories_are_left_out(
    job: Callable[..., DistillConfig], make_trajectories: Callable[..., Any]
) -> None:
    right, wrong = make_trajectories(1), make_trajectories(2, correct=False)[1:]
    history = distill(job([*right, *wrong], batch_size=8, accumulation=1)).history
    assert [entries(record) for record in history] == [36]
    settings = {"batch_size": 16, "accumulation": 1, "overwrite": True}
    history = distill(job([*right, *wrong], keep="all", **settings)).history
    assert [entries(record) for record in history] == [72]
    with pytest.raises(ValueError, match="no trajectory with a correct answer"):
        distill(job(wrong, overwrite=True))


def test_an_output_in_use_is_refused_unless_told_otherwise(job: Callable[..., DistillConfig]) -> None:
    config = job(max_steps=1, save_every=1)
    distill(config)
    with pytest.raises(FileExistsError, match="holds adapter already"):
        distill(config)
    distill(job(max_steps=1, overwrite=True))
    assert "checkpoint-000001" not in {path.name for path in Path(config.output).iterdir()}


def test_an_earlier_run_stands_until_the_next_is_complete(job: Callable[..., DistillConfig]) -> None:
    config = job(max_steps=2, save_every=1)
    distill(config)
    output = Path(config.output)
    earlier = {name: (output / name).read_bytes() for name in files(output)}
    with pytest.raises(FloatingPointError) as error:
        distill(job(learning_rate=1e30, max_grad_norm=0.0, max_steps=50, save_every=1, overwrite=True))
    _, note = error.value.__notes__
    unfinished = note.rpartition("/")[2]
    assert note == f"what this run has written is in {output / unfinished}"
    assert "checkpoint-000001/adapter_model.safetensors" in files(output / unfinished)
    left = {name: (output / name).read_bytes() for name in files(output) if not name.startswith(unfinished)}
    assert left == earlier


@pytest.mark.parametrize("path", ["/proc/x/y", "/proc"])
def test_the_output_is_tried_before_the_model_is_loaded(
    job: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(trainer_module, "load_model", None)
    with pytest.raises(ValueError, match=f"output must be a folder that .*, got '{path}'"):
        distill(job(output=path))


@pytest.mark.parametrize("every", [0, 1])
def test_a_disk_that_is_full_does_not_cost_the_adapter(
    job: Callable[..., DistillConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    config = job(max_steps=1, save_every=every)

    def save(adapted: Any, path: Path, also: Any) -> None:
        if path.is_relative_to(config.output):
            raise OSError(28, "No space left on device", str(path))
        save_adapter(adapted, path, also)

    monkeypatch.setattr(trainer_module, "save_adapter", save)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    with pytest.raises(OSError, match="No space left on device") as error:
        distill(config)
    rescued = error.value.__notes__[0].removeprefix("it was written to ").removesuffix(" instead")
    load_adapter(load_model(config.model), rescued)


def test_a_picture_that_cannot_be_drawn_costs_no_result(
    job: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "write_curve", lambda *_: 1 / 0)
    config = job(max_steps=1)
    with pytest.raises(ZeroDivisionError):
        distill(config)
    assert json.loads((Path(config.output) / "training.json").read_text())["steps"]
    load_adapter(load_model(config.model), Path(config.output) / "adapter")


@pytest.mark.parametrize("name", ["training.json", "loss.svg", "config.json"])
def test_files_of_another_run_are_not_overwritten(job: Callable[..., DistillConfig], name: str) -> None:
    config = job(max_steps=1)
    Path(config.output).mkdir(parents=True)
    (Path(config.output) / name).write_text("precious")
    with pytest.raises(FileExistsError):
        distill(config)
    assert (Path(config.output) / name).read_text() == "precious"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"delta": -1}, "delta must be an integer in .* got -1"),
        ({"target_modules": ["q_proj", "ff_out"]}, r"\['ff_out'\] match no linear module"),
        ({"trajectories": ("nowhere",)}, "nowhere"),
        ({"model": "nowhere"}, "nowhere"),
    ],
)
def test_bad_settings_leave_nothing_behind(
    job: Callable[..., DistillConfig], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        distill(job(**changes))
    assert not Path(job().output).exists()


def test_prompts_longer_than_the_model_are_refused(job: Callable[..., DistillConfig], make_trajectories: Any) -> None:
    long = make_trajectories(1)
    object.__setattr__(long[0], "prompt_ids", long[0].prompt_ids.repeat(60))
    config = job(long)
    with pytest.raises(ValueError, match=r"prompt_ids and response_ids need .* positions together, the model has 128"):
        distill(config)
    assert not Path(config.output).exists()


def test_an_exploding_loss_stops_the_run_and_keeps_the_last_checkpoint(job: Callable[..., DistillConfig]) -> None:
    config = job(learning_rate=1e30, max_grad_norm=0.0, max_steps=50, save_every=1)
    with pytest.raises(FloatingPointError, match="try a lower learning_rate"):
        distill(config)
    names = {path.name for path in Path(config.output).iterdir()}
    assert "adapter" not in names
    assert "checkpoint-000001" in names


def test_two_ranks_learn_what_one_does(job: Callable[..., DistillConfig], tmp_path: Path) -> None:
    """Global batches of 12 states as 4 micro-batches on one rank, and as 2 on each of two; an epoch's last has three
    micro-batches, so that one rank runs out."""
    shared = {"batch_size": 3, "dropout": 0.2, "normalization": "tokens"}
    alone = distill(job(**shared, accumulation=4, output=str(tmp_path / "one")))
    together = job(**shared, accumulation=2, output=str(tmp_path / "two"))
    assert Worker().run(together, ranks=2) == [0, 0]
    found = json.loads((tmp_path / "two" / "training.json").read_text())["steps"]
    expected = [asdict(record) for record in alone.history]
    assert [step["totals"] for step in found] == [step["totals"] for step in expected]
    assert found[0]["loss"] == pytest.approx(expected[0]["loss"], rel=1e-6)
    for name in ("loss", "parts", "grad_norm"):
        torch.testing.assert_close(
            [step[name] for step in found], [step[name] for step in expected], rtol=1e-3, atol=1e-4
        )
    one, two = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("one", "two"))
    torch.testing.assert_close(two, one, rtol=1e-2, atol=1e-3)
