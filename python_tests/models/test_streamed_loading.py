"""Weights go from the file to the device one by one; the meta device stands for a GPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from every_family import every_family, write
from transformers import PreTrainedModel

from tad_ext.models.loading import load_model


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
@every_family
def test_nothing_is_left_to_move_once_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, dtype: str
) -> None:
    folder = write(family, tmp_path / "model")
    device = torch.device("meta")
    monkeypatch.setattr("tad_ext.models.loading.resolve_device", lambda _: device)
    moved: list[torch.device] = []

    def note(model: PreTrainedModel, *arguments: Any) -> PreTrainedModel:
        moved.extend(tensor.device for tensor in (*model.parameters(), *model.buffers()))
        return model

    monkeypatch.setattr(PreTrainedModel, "to", note)
    model = load_model(folder, dtype=dtype)
    assert set(moved) == {device}
    assert not model.training
    assert not any(hasattr(module, "_hf_hook") for module in model.modules())  # which would move every input


@every_family
def test_a_model_that_is_changed_does_not_change_its_file(tmp_path: Path, family: str) -> None:
    """On a CPU its weights may be the mapped file."""
    folder = write(family, tmp_path / "model")
    before = {file: file.read_bytes() for file in folder.glob("*.safetensors")}
    model = load_model(folder)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1
    assert {file: file.read_bytes() for file in before} == before
    assert before
