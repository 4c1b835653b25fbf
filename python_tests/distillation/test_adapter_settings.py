"""`tad distill`: which adapter is trained, from which start, and with which activations kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tad_ext.distillation.adapter_run import TrainedAdapter
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.models import load_adapter, load_model, teacher

Job = Callable[..., DistillConfig]


@pytest.fixture
def run(job: Job, tmp_path: Path) -> Callable[..., TrainedAdapter]:
    """The settings, into a folder of that name."""
    return lambda name, **changes: distill(job(output=str(tmp_path / name), **changes))


def weights(result: TrainedAdapter) -> dict[str, torch.Tensor]:
    return load_file(result.adapter / "adapter_model.safetensors")


def test_dora_and_rslora_are_trained_and_the_teacher_stays_the_base(
    run: Callable[..., TrainedAdapter], job: Job
) -> None:
    plain = run("plain", max_steps=2)
    both = run("both", max_steps=2, use_dora=True, use_rslora=True)
    assert both.history[0].loss == plain.history[0].loss  # both start as the base model
    assert both.history[1].loss != plain.history[1].loss
    options = json.loads((both.adapter / "adapter_config.json").read_text())
    assert (options["use_dora"], options["use_rslora"]) == (True, True)
    lengths = {name for name in weights(both) if name.endswith("lora_magnitude_vector")}
    assert len(lengths) == 7 * 2
    ids = torch.tensor([[1, 2, 3, 23]])
    base = load_model(job().model)(ids).logits
    adapted = load_adapter(load_model(job().model), both.adapter)
    assert not torch.equal(adapted.get_base_model()(ids).logits, base)
    with teacher(adapted):
        assert torch.equal(adapted.get_base_model()(ids).logits, base)


def test_gradient_checkpointing_changes_no_bit(run: Callable[..., TrainedAdapter]) -> None:
    kept, computed = (run(str(on), max_steps=3, dropout=0.3, gradient_checkpointing=on) for on in (False, True))
    assert [record.loss for record in kept.history] == [record.loss for record in computed.history]
    assert kept.adapter.joinpath("adapter_model.safetensors").read_bytes() == (
        computed.adapter.joinpath("adapter_model.safetensors").read_bytes()
    )


OWN = {"rank": 3, "alpha": 6.0, "dropout": 0.25, "target_modules": ("q_proj", "up_proj")}


def test_a_training_starts_from_an_adapter_with_its_own_options(run: Callable[..., TrainedAdapter]) -> None:
    first = run("first", max_steps=8, **OWN)
    second = run("second", max_steps=1, learning_rate=1e-12, weight_decay=0.0, adapter=str(first.adapter))
    torch.testing.assert_close(weights(second), weights(first), rtol=0, atol=1e-10)
    before, after = (json.loads((one.adapter / "adapter_config.json").read_text()) for one in (first, second))
    assert before == after
    assert (after["r"], after["lora_alpha"], after["lora_dropout"]) == (3, 6, 0.25)
    settings = json.loads((second.adapter.parent / "training.json").read_text())["settings"]
    assert settings["adapter"] == str(first.adapter)
    assert settings.keys().isdisjoint({*OWN, "use_dora", "use_rslora"})


def test_an_adapter_to_start_from_that_does_not_fit_is_refused(
    run: Callable[..., TrainedAdapter], job: Job, make_model: Any, tmp_path: Path
) -> None:
    adapter = str(run("first", max_steps=1, **OWN).adapter)
    with pytest.raises(ValueError, match=r"rank is 4; the adapter to start from, '.*', has its own, so leave it out"):
        run("second", adapter=adapter, rank=4)
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config\.json"):
        run("second", adapter=str(tmp_path))
    config = job(adapter=adapter, output=str(tmp_path / "second"))
    make_model(1).save_pretrained(config.model)
    with pytest.raises(ValueError, match=r"made for another model: other weights in model\.safetensors"):
        distill(config)
    assert not (tmp_path / "second").exists()
    distill(job(adapter=adapter, output=str(tmp_path / "second"), allow_other_model=True, max_steps=1))
