"""Training goes on from a saved adapter: its weights, its options, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
import torch
from every_family import every_family, write
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_models import IDS, tiny_model, trainable
from torch import Tensor, nn

from tad_ext.models import add_lora, base_model, load_adapter, load_model, save_adapter, teacher

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # peft's own calls below

OPTIONS: list[dict[str, Any]] = [{}, {"dropout": 0.5}]
TARGETS = ["q_proj", "o_proj"]
FEW_IDS = IDS % 4  # which every family's tokenizer has


@torch.no_grad()
def outputs(model: nn.Module) -> Tensor:
    return base_model(model)(FEW_IDS).logits


def steps(model: PeftModel, count: int) -> None:
    """Of plain gradient descent, which has no state beside the weights."""
    model.train()
    for step in range(count):
        torch.manual_seed(step)
        base_model(model)(FEW_IDS).logits.square().mean().backward()
        with torch.no_grad():
            for weight in trainable(model).values():
                weight -= weight.grad
                weight.grad = None
    model.eval()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@every_family
def test_a_training_in_two_parts_is_one_training(tmp_path: Path, family: str, options: dict[str, Any]) -> None:
    folder = write(family, tmp_path / "base")
    made = {"rank": 4, "alpha": 6.0, "target_modules": TARGETS, **options}
    whole = add_lora(load_model(folder), **made)
    steps(whole, 2)
    save_adapter(whole, tmp_path / "half")
    steps(whole, 2)

    continued = load_adapter(load_model(folder), tmp_path / "half", trainable=True)
    assert trainable(continued).keys() == trainable(whole).keys()
    assert not continued.training
    steps(continued, 2)
    for name, weight in trainable(whole).items():
        assert torch.equal(trainable(continued)[name], weight), name
    with teacher(continued):
        assert torch.equal(outputs(continued), outputs(load_model(folder)))
    save_adapter(continued, tmp_path / "whole")
    assert torch.equal(outputs(load_adapter(load_model(folder), tmp_path / "whole")), outputs(whole))


def test_its_weights_are_float32_on_any_base(tmp_path: Path) -> None:
    """Also those of an adapter that was stored in half precision."""
    model = tiny_model().bfloat16()
    made = get_peft_model(model, LoraConfig(r=2, target_modules=TARGETS), autocast_adapter_dtype=False)
    made.save_pretrained(tmp_path)
    continued = load_adapter(tiny_model().bfloat16(), tmp_path, trainable=True)
    assert {weight.dtype for weight in trainable(continued).values()} == {torch.float32}
    assert len(trainable(continued)) == 2 * 2 * 2


def test_another_base_model_is_refused_by_name(tmp_path: Path) -> None:
    for seed in (0, 1):
        write("tiny", tmp_path / str(seed))
    other = load_model(tmp_path / "1")
    with torch.no_grad():
        other.lm_head.weight += 1
    other.save_pretrained(tmp_path / "1")
    adapted = add_lora(load_model(tmp_path / "0"), rank=2, alpha=2.0, target_modules=TARGETS)
    save_adapter(adapted, tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"made for another model: other weights in model\.safetensors"):
        load_adapter(load_model(tmp_path / "1"), tmp_path / "adapter", trainable=True)


def test_modules_trained_as_a_whole_are_no_start(tmp_path: Path) -> None:
    made: nn.Module = get_peft_model(tiny_model(), LoraConfig(target_modules=TARGETS, modules_to_save=["norm"]))
    made.save_pretrained(tmp_path)
    model = tiny_model()
    with pytest.raises(ValueError, match=r"modules_to_save is \['norm'\]; expected none in one to train on"):
        load_adapter(model, tmp_path, trainable=True)
    assert not hasattr(model, "peft_config")
    load_adapter(model, tmp_path)
