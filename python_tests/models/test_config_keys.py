"""Every key of a config.json: one setting in several spellings, what changes nothing, and what is refused by name."""

import json
from pathlib import Path

import pytest
import torch
from every_family import Fields, as_transformers_5_writes, every_family, originals, with_changes, write
from torch import Tensor
from transformers import Qwen2Config

from tad_ext.models import load_config, load_model, load_tokenizer
from tad_ext.models.loading import save_model

IDS = torch.arange(20)[None] % 6


@torch.no_grad()
def logits(folder: Path) -> Tensor:
    return load_model(folder)(IDS).logits


@originals
def test_the_form_of_transformers_5_gives_the_same_model_and_is_saved_as_the_original(
    family: str, tmp_path: Path
) -> None:
    old, new = write(family, tmp_path / "old"), write(family, tmp_path / "new", as_transformers_5_writes)
    assert torch.equal(logits(new), logits(old))
    other = write(family, tmp_path / "other", with_changes({"rope_theta": 10000.0}))
    assert not torch.equal(logits(other), logits(old))  # so the comparison sees the rotation
    for folder in (old, new):
        save_model(load_model(folder), load_tokenizer(folder), folder / "saved")
    saved = [json.loads((folder / "saved" / "config.json").read_text()) for folder in (old, new)]
    assert saved[0] == saved[1]
    assert saved[0]["rope_theta"] == {"llada": 5e5, "llada_moe": 5e4}.get(family, 1e6)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 777.0},
        {"rope_parameters": {"rope_theta": 777.0, "rope_type": "default"}},
        {"rope_parameters": {"rope_theta": 777}},
        {"rope_parameters": {"rope_theta": 777.0, "factor": None}, "rope_theta": None, "rope_scaling": None},
        {"rope_scaling": {"type": "default", "rope_theta": 777.0}},
        {"rope_scaling": {"rope_type": "default"}, "rope_theta": 777.0},
        {"rope_parameters": {"rope_theta": 777.0}, "rope_theta": 777},
    ],
)
@every_family
def test_theta_in_every_spelling(family: str, tmp_path: Path, changes: Fields) -> None:
    def edit(fields: Fields) -> None:
        for name in ("rope_theta", "rope_scaling", "rope_parameters"):
            fields.pop(name, None)
        fields.update(changes)

    assert load_config(write(family, tmp_path, edit)).rope_parameters == {"rope_theta": 777.0, "rope_type": "default"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"torch_dtype": "bfloat16"}, torch.bfloat16),
        ({"dtype": "bfloat16"}, torch.bfloat16),
        ({"dtype": "bfloat16", "torch_dtype": None}, torch.bfloat16),
        ({"dtype": None, "torch_dtype": "float16"}, torch.float16),
        ({"dtype": "float16", "torch_dtype": "float16"}, torch.float16),
        ({"dtype": None, "torch_dtype": None}, None),
    ],
)
@every_family
def test_dtype_in_both_spellings(family: str, tmp_path: Path, changes: Fields, expected: torch.dtype | None) -> None:
    def edit(fields: Fields) -> None:
        fields.pop("dtype", None)
        fields.pop("torch_dtype", None)
        fields.update(changes)

    assert load_config(write(family, tmp_path, edit)).dtype == expected


def test_llada_in_the_names_of_llama(tmp_path: Path) -> None:
    names = {
        "d_model": "hidden_size", "n_heads": "num_attention_heads", "n_kv_heads": "num_key_value_heads",
        "n_layers": "num_hidden_layers", "mlp_hidden_size": "intermediate_size", "weight_tying": "tie_word_embeddings",
        "max_sequence_length": "max_position_embeddings", "init_std": "initializer_range",
    }  # fmt: skip
    old = write("llada", tmp_path / "old")
    new = write(
        "llada", tmp_path / "new", lambda fields: [fields.update({names[key]: fields.pop(key)}) for key in names]
    )
    assert torch.equal(logits(new), logits(old))


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "llada",
            {"rope_parameters": {"rope_theta": 3.0}},
            "rope_theta is 500000.0 and rope_parameters.rope_theta is 3.0",
        ),
        ("dream", {"rope_scaling": {"rope_theta": 3.0}}, "rope_theta is 1000000.0 and rope_scaling.rope_theta is 3.0"),
        ("tiny", {"rope_theta": 3.0}, "rope_theta is 3.0 and rope_parameters.rope_theta is 10000.0"),
        ("dream", {"dtype": "bfloat16"}, "torch_dtype is 'float32' and dtype is 'bfloat16'"),
        ("tiny", {"torch_dtype": "bfloat16"}, "torch_dtype is 'bfloat16' and dtype is 'float32'"),
        ("llada", {"num_key_value_heads": 2}, "n_kv_heads is 4 and num_key_value_heads is 2"),
        ("llada", {"tie_word_embeddings": True}, "weight_tying is False and tie_word_embeddings is True"),
    ],
)
def test_spellings_that_disagree(family: str, tmp_path: Path, changes: Fields, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_model(write(family, tmp_path, with_changes(changes)))
    assert f"{tmp_path / 'config.json'}: {message}, two names of one setting" in str(caught.value)


YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": YARN}, f"rope_parameters is {YARN}; supported: None or {{'rope_type': 'default'"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling is {'type': 'linear'}; supported: None or"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters is {'partial_rotary_factor': 0.5}"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 5.0}}}, "rope_parameters is {'full_attention'"),
        ({"rope_parameters": "default"}, "rope_parameters is 'default'"),
        ({"rope_parameters": []}, "rope_parameters is []"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types is ['full_attention', 'sliding_atten"),
        ({"layer_types": "full_attention"}, "layer_types is 'full_attention'; supported: None or"),
        ({"is_causal": True}, "is_causal is True; supported: False"),
        ({"torch_dtype": "int8", "dtype": None}, "torch_dtype is 'int8'; supported: None or 'bfloat16' or"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"an_option_of_tomorrow": False}, "an_option_of_tomorrow is False, a key that is not understood"),
    ],
)
@every_family
def test_what_would_be_ignored_is_refused(family: str, tmp_path: Path, changes: Fields, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_model(write(family, tmp_path, with_changes(changes)))
    assert f"{tmp_path / 'config.json'}: {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("llada", {"sliding_window": 4}, "sliding_window is 4, a key that is not understood"),
        ("tiny", {"sliding_window": 4}, "sliding_window is 4, a key that is not understood"),
        ("llada", {"head_dim": 32}, "head_dim is 32, not d_model / n_heads; supported: None or 16"),
        ("dream", {"head_dim": 32}, "head_dim is 32, not hidden_size / num_attention_heads; supported: None or 16"),
    ],
)
def test_what_one_family_refuses(family: str, tmp_path: Path, changes: Fields, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_model(write(family, tmp_path, with_changes(changes)))
    assert message in str(caught.value)


@every_family
def test_what_changes_nothing_is_accepted(family: str, tmp_path: Path) -> None:
    harmless = {
        "an_option_of_tomorrow": None, "layer_types": None, "is_causal": False, "_attn_implementation": "sdpa",
        "_name_or_path": "elsewhere", "use_cache": True, "temperature": 0.7, "max_length": 20, "id2label": {"0": "a"},
        "tokenizer_class": "Other", "return_dict": True, "pretraining_tp": 1, "attention_bias": False,
    }  # fmt: skip
    harmless |= {"head_dim": 16} if family in ("llada", "dream", "fast_dllm") else {}
    plain, more = write(family, tmp_path / "plain"), write(family, tmp_path / "more", with_changes(harmless))
    assert torch.equal(logits(more), logits(plain))


def test_a_closed_window_of_dream(tmp_path: Path) -> None:
    """As Qwen2's configuration writes it where no layer slides."""
    window = Qwen2Config(num_hidden_layers=2, use_sliding_window=False).to_dict()
    names = ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types")
    closed = {name: window[name] for name in names} | {"sliding_window": 4096}
    plain, written = write("dream", tmp_path / "plain"), write("dream", tmp_path / "closed", with_changes(closed))
    assert torch.equal(logits(written), logits(plain))
