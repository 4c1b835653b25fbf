"""A checkpoint of each family of models, and edits of its config.json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import write_dream, write_fast_dllm, write_llada, write_llada_moe, write_sdar
from word_checkpoints import write_words_model

Fields = dict[str, Any]

WRITERS: dict[str, Callable[[Path], object]] = {
    "llada": write_llada, "dream": write_dream, "sdar": write_sdar, "fast_dllm": write_fast_dllm,
    "llada_moe": write_llada_moe, "tiny": write_words_model,
}  # fmt: skip
every_family = pytest.mark.parametrize("family", WRITERS)
originals = pytest.mark.parametrize("family", [family for family in WRITERS if family != "tiny"])


def write(family: str, folder: Path, edit: Callable[[Fields], object] = lambda fields: None) -> Path:
    """A checkpoint of that family with random weights, always the same, and its config.json edited."""
    WRITERS[family](folder)
    edit_json(folder / "config.json", edit)
    return folder


def edit_json(file: Path, edit: Callable[[Fields], object]) -> None:
    fields = json.loads(file.read_text())
    edit(fields)
    file.write_text(json.dumps(fields))


def with_changes(changes: Fields) -> Callable[[Fields], object]:
    return lambda fields: fields.update(changes)


def as_transformers_5_writes(fields: Fields) -> None:
    fields["rope_parameters"] = {"rope_theta": fields.pop("rope_theta"), "rope_type": "default"}
    fields["dtype"] = fields.pop("torch_dtype", "float32")
    fields["layer_types"] = ["full_attention"] * 2
