"""The teacher of a model whose adapters come and go between its calls, and what its switch visits."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from tiny_models import logits, tiny_model, trainable
from torch import nn

from tad_ext.models import add_lora, base_model, merge_adapter, teacher
from tad_ext.models.base import evaluation_mode

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # peft's own calls below


def adapted_model(**options: object) -> PeftModel:
    adapted = add_lora(tiny_model(), rank=4, alpha=8.0, target_modules=["q_proj", "up_proj"], **options)
    shake(adapted)
    return adapted


def shake(model: nn.Module) -> None:
    """As if all that is trainable had been trained."""
    torch.manual_seed(2)
    for parameter in trainable(model).values():
        parameter.data += 0.2 * torch.randn_like(parameter)


def check_teacher(model: PeftModel) -> None:
    base, student = logits(tiny_model()), logits(model)
    assert not torch.equal(student, base)
    with teacher(model):
        assert torch.equal(logits(model), base)
        assert torch.equal(base_model(model).lm_head.weight, tiny_model().lm_head.weight)
    assert torch.equal(logits(model), student)


def test_adapters_that_are_added_later_are_switched_off_as_well() -> None:
    model = adapted_model()
    check_teacher(model)
    model.add_adapter("more", LoraConfig(r=2, target_modules=["q_proj", "down_proj"], modules_to_save=["lm_head"]))
    model.set_adapter("more")
    shake(model)
    check_teacher(model)
    model.base_model.set_adapter(["default", "more"])
    check_teacher(model)
    model.delete_adapter("more")
    model.set_adapter("default")
    check_teacher(model)


def test_an_adapter_that_is_merged_later_is_refused_until_it_is_separate_again() -> None:
    model = adapted_model()
    check_teacher(model)
    model.merge_adapter()
    with pytest.raises(ValueError, match="model has its adapter merged"), teacher(model):
        pass
    model.unmerge_adapter()
    with teacher(model):
        torch.testing.assert_close(logits(model), logits(tiny_model()))  # subtracting has rounded


def test_a_model_that_was_merged_and_adapted_again() -> None:
    model = adapted_model()
    check_teacher(model)
    merged = merge_adapter(model)
    base = logits(merged)
    again = add_lora(merged, rank=2, alpha=2.0, target_modules=["down_proj"])
    shake(again)
    assert not torch.equal(logits(again), base)
    with teacher(again):
        assert torch.equal(logits(again), base)


def test_weights_stay_trainable_and_what_an_adapter_holds_is_not_visited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an 8B model that is three modules in four."""
    visited: set[nn.Module] = set()

    def noted(modules: list[nn.Module]) -> object:
        visited.update(modules)
        return evaluation_mode(modules)

    monkeypatch.setattr("tad_ext.models.lora.evaluation_mode", noted)
    model = adapted_model(dropout=0.1)
    names = trainable(model).keys()
    with teacher(model):
        assert trainable(model).keys() == names
    found = {name for name, module in model.named_modules() if module in visited}
    assert found == {name for name, _ in model.named_modules() if ".lora_" not in name}
