"""What identifies a model: its meaning and its weights, not how files are written; and what is said of another one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from collection_runs import make_model
from earlier_versions import bytes_fingerprint
from every_family import Fields, as_transformers_5_writes, edit_json, every_family, originals, with_changes, write
from safetensors.torch import load_file, save_file
from tiny_checkpoints import write_llada
from tiny_models import tiny_model

from tad_ext.cli import main
from tad_ext.models import (
    add_lora,
    base_model,
    load_adapter,
    load_model,
    merge_adapter,
    model_fingerprint,
    save_adapter,
)
from tad_ext.models.identity import identity_differences, model_identity
from tad_ext.models.lora import load_merged


def differences(folder: Path, other: Path) -> list[tuple[str, Any, Any]]:
    return identity_differences(model_identity(folder), model_identity(other), other)


def reversed_keys(fields: Fields) -> None:
    for name in list(fields)[::-1]:
        fields[name] = fields.pop(name)


SAME: list[Callable[[Fields], object]] = [
    reversed_keys,
    with_changes({"transformers_version": "5.99.0", "auto_map": {"AutoModel": "other.Model"}, "use_cache": True}),
    with_changes({"eos_token_ids": [3, 4], "suppress_token_ids": [5], "pad_token_id": 5, "bos_token_id": 5}),
    with_changes({"attention_dropout": 0.5, "_name_or_path": "elsewhere", "an_option_of_tomorrow": None}),
]


@every_family
@pytest.mark.parametrize("edit", SAME)
def test_the_same_model(family: str, tmp_path: Path, edit: Callable[[Fields], object]) -> None:
    plain, edited = write(family, tmp_path / "plain"), write(family, tmp_path / "edited", edit)
    (edited / "config.json").write_text(json.dumps(json.loads((edited / "config.json").read_text()), indent=7) + "\n\n")
    assert differences(plain, edited) == []
    assert model_fingerprint(plain) == model_fingerprint(edited)


@originals
def test_the_same_model_in_another_spelling(family: str, tmp_path: Path) -> None:
    plain, edited = write(family, tmp_path / "plain"), write(family, tmp_path / "edited", as_transformers_5_writes)
    assert model_identity(plain) == model_identity(edited)
    assert model_fingerprint(plain) == model_fingerprint(edited)
    bfloat16 = write(family, tmp_path / "bfloat16", with_changes({"torch_dtype": "bfloat16"}))
    assert model_identity(plain) == model_identity(bfloat16)


@every_family
@pytest.mark.parametrize(("name", "value"), [("rms_norm_eps", 0.125), ("mask_token_id", 3), ("rope_theta", 777.0)])
def test_another_meaning_is_named(family: str, tmp_path: Path, name: str, value: float) -> None:
    def edit(fields: Fields) -> None:
        fields.pop("rope_parameters", None)
        fields[name] = value

    plain, edited = write(family, tmp_path / "plain"), write(family, tmp_path / "edited", edit)
    ((found, before, now),) = differences(plain, edited)
    assert (found, now) == (name, value)
    assert before == {"rope_theta": load_model(plain).config.rope_parameters["rope_theta"]}.get(
        name, getattr(load_model(plain).config, name, None)
    )
    assert model_fingerprint(plain) != model_fingerprint(edited)


def test_the_rotation_of_llada(tmp_path: Path) -> None:
    plain = write("llada", tmp_path / "plain")
    edited = write("llada", tmp_path / "edited", with_changes({"rope_full_precision": False}))
    assert differences(plain, edited) == [("rope_full_precision", True, False)]


def test_each_weights_file_is_named(tmp_path: Path) -> None:
    write("llada", tmp_path / "one")
    for name in ("a", "b"):
        write_llada(tmp_path / name, shards=3)
    file = tmp_path / "b" / "model-00002-of-00003.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(file).items()}, file, metadata={"format": "pt"})
    assert [name for name, _, _ in differences(tmp_path / "a", tmp_path / "b")] == [f"weights in {file.name}"]
    assert [name for name, _, _ in differences(tmp_path / "one", tmp_path / "a")] == [
        "weights in model-00001-of-00003.safetensors",
        "weights in model-00002-of-00003.safetensors",
        "weights in model-00003-of-00003.safetensors",
        "weights in model.safetensors",
    ]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write("tiny", tmp_path / "base")


@pytest.fixture
def adapter(checkpoint: Path, tmp_path: Path) -> Path:
    save_adapter(add_lora(load_model(checkpoint), rank=2, alpha=2.0, target_modules=["q_proj"]), tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_of_a_reformatted_base(checkpoint: Path, adapter: Path) -> None:
    edit_json(checkpoint / "config.json", reversed_keys)
    edit_json(checkpoint / "config.json", with_changes({"eos_token_ids": [1, 2], "dtype": None}))
    load_adapter(load_model(checkpoint), adapter)


def test_an_adapter_of_another_base_is_refused_unless_one_insists(checkpoint: Path, adapter: Path) -> None:
    edit_json(checkpoint / "config.json", with_changes({"rms_norm_eps": 0.125}))
    message = (
        r"adapter '.*adapter' was made for another model: rms_norm_eps 1e-06, this model's is 0\.125; .*allow_other"
    )
    with pytest.raises(ValueError, match=message):
        load_adapter(load_model(checkpoint), adapter)
    load_adapter(load_model(checkpoint), adapter, allow_other_model=True)
    with pytest.raises(ValueError, match=message):
        load_merged(checkpoint, adapter)
    load_merged(checkpoint, adapter, allow_other_model=True)


@pytest.mark.parametrize(
    "command",
    [
        ["merge", "--output"],
        ["generate", "--prompt", "C1>", "--gen-length", "4", "--block-length", "4", "--output"],
        ["evaluate", "--limit", "2", "--gen-length", "4", "--block-length", "4", "--thresholds", "9", "--output"],
    ],
)
def test_the_option_is_called_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    checkpoint, adapter = Path(make_model(tmp_path / "model", seed=0)), tmp_path / "adapter"
    save_adapter(add_lora(load_model(checkpoint), rank=2, alpha=2.0, target_modules=["q_proj"]), adapter)
    edit_json(checkpoint / "config.json", with_changes({"rms_norm_eps": 0.125}))
    line = [*command, str(tmp_path / "out"), "--model", str(checkpoint), "--adapter", str(adapter), "--device", "cpu"]
    assert main(line) != 0
    assert "another model: rms_norm_eps 1e-06, this model's is 0.125" in capsys.readouterr().err
    assert main([*line, "--allow-other-model"]) == 0


def test_adapters_of_earlier_versions(checkpoint: Path, adapter: Path) -> None:
    noted = bytes_fingerprint(checkpoint)
    (adapter / "base_model.json").write_text(json.dumps({"model_type": "tad_tiny", "base_fingerprint": noted}))
    load_adapter(load_model(checkpoint), adapter)
    edit_json(checkpoint / "config.json", reversed_keys)
    message = f"in one hash of an earlier version, {noted}, this model's is {bytes_fingerprint(checkpoint)};"
    with pytest.raises(ValueError, match=message):
        load_adapter(load_model(checkpoint), adapter)
    load_adapter(load_model(checkpoint), adapter, allow_other_model=True)


def test_a_merged_model_in_memory_is_not_the_one_in_the_folder(checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    merged = merge_adapter(load_adapter(load_model(checkpoint), adapter))
    save_adapter(add_lora(merged, rank=2, alpha=2.0, target_modules=["q_proj"]), tmp_path / "second")
    noted = [json.loads((folder / "base_model.json").read_text()) for folder in (adapter, tmp_path / "second")]
    assert list(noted[0].pop("weights")) == ["model.safetensors"]
    assert noted[0] == noted[1]


def test_a_base_without_a_folder_is_known_by_its_configuration(tmp_path: Path) -> None:
    save_adapter(add_lora(tiny_model(), rank=2, alpha=2.0, target_modules=["q_proj"]), tmp_path)
    load_adapter(tiny_model(seed=1), tmp_path)
    with pytest.raises(ValueError, match="another model: mask_token_id 23, this model's is 20;"):
        load_adapter(tiny_model(mask_token_id=20), tmp_path)
    assert base_model(load_adapter(tiny_model(mask_token_id=20), tmp_path, allow_other_model=True))
