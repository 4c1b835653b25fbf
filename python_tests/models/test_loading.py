"""Checkpoints: what is written is read back, and whatever does not fit is refused by name, from the headers alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tad_ext.data.tasks.arithmetic import arithmetic_tokenizer
from tad_ext.models import checkpoint as checkpoint_files
from tad_ext.models.checkpoint import stored_shapes, weight_files
from tad_ext.models.identity import model_fingerprint
from tad_ext.models.loading import load_model, load_tokenizer, save_model
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM

IDS = torch.tensor([[1, 2, 21, 21]])


def make_model(seed: int = 0, **changes: object) -> TinyDiffusionLM:
    sizes = {"vocab_size": 24, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    ids = {"mask_token_id": 21, "eos_token_ids": [22], "suppress_token_ids": [23]}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyDiffusionLM(TinyDiffusionConfig(**{**sizes, "num_attention_heads": 2, **ids, **changes})).eval()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    save_model(make_model(), arithmetic_tokenizer(), tmp_path / "checkpoint", reports={"training.json": {"steps": 3}})
    return tmp_path / "checkpoint"


def edit_weights(path: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(path / "model.safetensors")
    edit(weights)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def test_round_trip(checkpoint: Path) -> None:
    model = load_model(checkpoint)
    assert type(model) is TinyDiffusionLM
    assert not model.training
    assert torch.equal(model(IDS).logits, make_model()(IDS).logits)
    assert model.config.mask_token_id == 21
    tokenizer = load_tokenizer(checkpoint)
    assert tokenizer("CFA4>", add_special_tokens=False)["input_ids"] == [12, 15, 10, 4, 19]
    assert (tokenizer.mask_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (21, 22, 23)
    assert json.loads((checkpoint / "training.json").read_text()) == {"steps": 3}
    assert [entry.name for entry in checkpoint.parent.iterdir()] == ["checkpoint"]  # no temporary folder is left


def test_shards_and_tied_weights(tmp_path: Path) -> None:
    model = make_model(tie_word_embeddings=True)
    model.save_pretrained(tmp_path, max_shard_size="3KB")
    assert len(weight_files(tmp_path)) > 1
    assert "lm_head.weight" not in stored_shapes(tmp_path)
    assert torch.equal(load_model(tmp_path)(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (None, torch.float32),
        ("auto", torch.float32),
        ("bfloat16", torch.bfloat16),
        (torch.float64, torch.float64),
    ],
)
def test_dtype(checkpoint: Path, dtype: torch.dtype | str | None, expected: torch.dtype) -> None:
    model = load_model(checkpoint, dtype=dtype, device="cpu")
    assert {weight.dtype for weight in model.parameters()} == {expected}


def test_own_dtype_is_kept(tmp_path: Path) -> None:
    make_model().to(torch.bfloat16).save_pretrained(tmp_path)
    assert load_model(tmp_path).lm_head.weight.dtype == torch.bfloat16


def test_missing_unexpected_and_misshapen_weights_are_named(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def edit(weights: dict[str, torch.Tensor]) -> None:
        del weights["model.layers.0.mlp.up_proj.weight"]
        weights["model.layers.9.foreign"] = torch.zeros(2)
        weights["lm_head.weight"] = torch.zeros(25, 16)

    edit_weights(checkpoint, edit)
    monkeypatch.setattr(TinyDiffusionLM, "from_pretrained", None)  # memory is never filled
    with pytest.raises(ValueError) as caught:
        load_model(checkpoint)
    for part in (
        "missing weights: model.layers.0.mlp.up_proj.weight",
        "unexpected weights: model.layers.9.foreign",
        "weights of the wrong shape: lm_head.weight (25, 16) instead of (24, 16)",
    ):
        assert part in str(caught.value)


def test_a_long_list_of_keys_is_shortened(checkpoint: Path) -> None:
    edit_weights(checkpoint, lambda weights: [weights.pop(key) for key in list(weights)[:-1]])
    with pytest.raises(ValueError, match=r"missing weights: .* and \d+ more"):
        load_model(checkpoint)


def test_folders_that_are_no_checkpoint(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(
        ValueError, match=r"model must be a checkpoint folder, got path '.*nowhere', which is no folder"
    ):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds no config\.json"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match=r"model must be a checkpoint folder, got path .* holds no config\.json"):
        load_tokenizer(tmp_path)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"holds no weights; expected model\.safetensors"):
        load_model(checkpoint)


def test_pickle_is_refused(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ValueError, match=r"pickle only \(pytorch_model\.bin\), which can run code and is never loaded"):
        load_model(checkpoint)


@pytest.mark.parametrize("content", ['{"model_type": "gpt2"}', "{}"])
def test_unknown_model_type(checkpoint: Path, content: str) -> None:
    (checkpoint / "config.json").write_text(content)
    expected = json.loads(content).get("model_type")
    with pytest.raises(ValueError, match=f"model_type {expected!r}; supported are Dream, Fast_dLLM_Qwen, llada, "):
        load_model(checkpoint)


@pytest.mark.parametrize("content", ["[1, 2]", "{", "\udcff"])
def test_broken_config(checkpoint: Path, content: str) -> None:
    (checkpoint / "config.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"config\.json is not a JSON object"):
        load_model(checkpoint)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_damaged_weights(checkpoint: Path, keep: int) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or not a safetensors file"):
        load_model(checkpoint)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{", "is not a safetensors index"),
        ("[]", "is not a safetensors index"),
        ('{"weight_map": {"a": "gone.safetensors"}}', r"names missing files gone\.safetensors"),
        ('{"weight_map": {"a": "../other/model.safetensors"}}', "outside the checkpoint's folder"),
    ],
)
def test_broken_index(checkpoint: Path, index: str, message: str) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=message):
        load_model(checkpoint)


@pytest.mark.parametrize("dtype", ["int64", "float33", torch.int32, 3])
def test_wrong_dtype_is_refused_before_reading(dtype: object) -> None:
    with pytest.raises(ValueError, match="dtype must be auto, float32, bfloat16"):
        load_model("anywhere", dtype=dtype)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_wrong_device_is_refused_before_reading(device: str) -> None:
    with pytest.raises(ValueError, match=r"device must be .* got '"):
        load_model("anywhere", device=device)


def test_save_refuses_to_overwrite_and_leaves_nothing_half_written(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model_fingerprint(checkpoint)
    with pytest.raises(FileExistsError):
        save_model(make_model(1), arithmetic_tokenizer(), checkpoint)
    with pytest.raises(ValueError, match="Out of range float values"):
        save_model(make_model(1), arithmetic_tokenizer(), checkpoint, reports={"a.json": float("nan")}, overwrite=True)
    assert model_fingerprint(checkpoint) == before
    save_model(make_model(1), arithmetic_tokenizer(), checkpoint, overwrite=True)
    assert model_fingerprint(checkpoint) != before
    assert [entry.name for entry in checkpoint.parent.iterdir()] == ["checkpoint"]


def test_fingerprint(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        save_model(make_model(seed), arithmetic_tokenizer(), tmp_path / name)
    a, b, c = (model_fingerprint(tmp_path / name) for name in "abc")
    assert a == b != c
    assert len(a) == 16
    int(a, 16)
    config = tmp_path / "b" / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    assert model_fingerprint(tmp_path / "b") != a


def test_fingerprint_samples_reach_the_whole_file(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = checkpoint / "model.safetensors"
    content = bytearray(file.read_bytes())
    monkeypatch.setattr(checkpoint_files, "_SAMPLE_BYTES", len(content) // 63 + 1)  # 64 samples just cover the file
    seen = {model_fingerprint(checkpoint)}
    for place in range(1, 24):
        content[-place * len(content) // 24] ^= 1
        file.write_bytes(content)
        seen.add(model_fingerprint(checkpoint))
    assert len(seen) == 24
