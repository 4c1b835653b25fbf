"""Gradient checkpointing: the same gradients, of fewer kept activations."""

from pathlib import Path
from typing import Any

import pytest
import torch
from every_family import every_family, write
from peft import PeftModel
from tiny_models import trainable
from torch import Tensor, nn

from tad_ext.models import add_lora, base_model, load_model, teacher
from tad_ext.models.gradient_checkpointing import enable_gradient_checkpointing

IDS = torch.arange(16).reshape(2, 8) % 4
# Flattened, of every row its own (the last layer computes these alone), and every position.
POSITIONS = {"flat": torch.tensor([0, 3, 9, 15]), "rows": torch.tensor([[1, 5], [8, 12]]), "all": None}


def adapted_model(folder: Path, *, dropout: float = 0.0) -> PeftModel:
    model = add_lora(load_model(folder, dtype="float64"), rank=2, alpha=4.0, dropout=dropout)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in trainable(model).values():
            nn.init.normal_(parameter, std=0.2)
    return model.train()


def kept_and_gradients(model: PeftModel, **options: Any) -> tuple[int, dict[str, Tensor]]:
    """Numbers that the forward keeps for the backward, beside weights, and the gradients of the adapter."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    torch.manual_seed(7)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = base_model(model).hidden_rows(IDS, **options)
    hidden.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in trainable(model).items()}
    model.zero_grad()
    return sum(kept.values()), gradients


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@every_family
def test_the_gradients_are_the_same(tmp_path: Path, family: str, dropout: float, positions: str) -> None:
    folder = write(family, tmp_path / "base", lambda fields: fields.update(attention_dropout=dropout))
    model = adapted_model(folder, dropout=dropout)
    options = {"lengths": torch.tensor([8, 5]), "positions": POSITIONS[positions]}
    kept, expected = kept_and_gradients(model, **options)
    enable_gradient_checkpointing(model)
    fewer, found = kept_and_gradients(model, **options)
    assert found.keys() == expected.keys()
    assert len(found) == len(trainable(model)) > 0
    for name, gradient in expected.items():
        assert gradient.abs().sum() > 0, name
        assert torch.equal(found[name], gradient), name
    assert fewer < kept / 3


def test_before_the_adapter_or_after_it(tmp_path: Path) -> None:
    folder = write("llada", tmp_path / "base")
    before: PeftModel = adapted_model(folder)
    plain = load_model(folder, dtype="float64")
    enable_gradient_checkpointing(plain)
    after = add_lora(plain, rank=2, alpha=4.0)
    after.load_state_dict(before.state_dict())
    enable_gradient_checkpointing(before)
    (kept, expected), (also_kept, found) = kept_and_gradients(before), kept_and_gradients(after.train())
    assert kept == also_kept
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


@every_family
def test_the_teacher_is_the_base_all_the_same(tmp_path: Path, family: str) -> None:
    folder = write(family, tmp_path / "base")
    model = adapted_model(folder, dropout=0.3)
    enable_gradient_checkpointing(model)
    with torch.no_grad():
        expected = base_model(load_model(folder, dtype="float64")).hidden_rows(IDS)
    student = base_model(model).hidden_rows(IDS)
    with teacher(model):
        found = base_model(model).hidden_rows(IDS)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    student.sum().backward()  # computes layers again, after the teacher has run


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(TypeError, match="masked diffusion model"):
        enable_gradient_checkpointing(nn.Linear(2, 2))
