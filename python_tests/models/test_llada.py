"""LLaDA from original checkpoints: the logits of an independent formula, fp32 rotation, decoding, saving back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_checkpoints import TinyCheckpoint, write_llada
from torch import Tensor
from transformer_formula import llada_logits, stored_weights
from transformers import AutoConfig, AutoModelForMaskedLM, DynamicCache

import tad_ext
from tad_ext.models import LLaDAConfig, LLaDAModelLM, load_config, load_model, load_tokenizer
from tad_ext.models.loading import save_model


@pytest.fixture
def checkpoint(tmp_path: Path) -> TinyCheckpoint:
    return write_llada(tmp_path / "llada")


def random_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 400, shape, generator=torch.Generator().manual_seed(seed))


def expected(written: TinyCheckpoint, ids: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    rotation = torch.promote_types(dtype, torch.float32)
    weights = stored_weights(written.folder)
    return llada_logits(weights, written.config, ids, dtype=dtype, rotation=rotation)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return ((found.double() - wanted.double()).square().mean() / wanted.double().square().mean()).sqrt().item()


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("options", [{}, {"kv_heads": 2}, {"tied": True}, {"shards": 3, "layers": 3, "width": 32}])
def test_logits_are_those_of_the_formula(tmp_path: Path, implementation: str, options: dict[str, Any]) -> None:
    written = write_llada(tmp_path, **options)
    model = load_model(tmp_path)
    assert type(model) is LLaDAModelLM
    model.set_attn_implementation(implementation)
    ids, lengths = random_ids(2, 40), [40, 23]
    logits = model(ids, lengths=torch.tensor(lengths)).logits
    for row, length in enumerate(lengths):
        wanted = expected(written, ids[row, :length])
        torch.testing.assert_close(logits[row, :length].double(), wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(model(ids).logits[0].double(), expected(written, ids[0]), rtol=0, atol=1e-4)


@torch.no_grad()
def test_float64_is_exact_but_for_the_float32_angles(checkpoint: TinyCheckpoint) -> None:
    ids = random_ids(30)
    logits = load_model(checkpoint.folder, dtype="float64")(ids[None]).logits[0]
    torch.testing.assert_close(logits, expected(checkpoint, ids), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.usefixtures("attention_of_pytorch")
def test_bfloat16_rotates_in_float32(tmp_path: Path, seed: int) -> None:
    written = write_llada(tmp_path, seed=seed)
    ids = random_ids(96, seed=seed)
    wanted = expected(written, ids, torch.bfloat16)
    assert relative_error(load_model(tmp_path, dtype="bfloat16")(ids[None]).logits[0], wanted) < 1e-2
    # Rounding a loaded model must not round the angles, and a rotation in bfloat16 must be seen by this comparison.
    assert relative_error(load_model(tmp_path).to(torch.bfloat16)(ids[None]).logits[0], wanted) < 1e-2
    write_llada(tmp_path, seed=seed, config={"rope_full_precision": False})
    stock = load_model(tmp_path, dtype="bfloat16")(ids[None]).logits[0]
    assert relative_error(stock, wanted) > 1.2e-2


@torch.no_grad()
@pytest.mark.usefixtures("attention_of_pytorch")
def test_rotation_in_the_models_dtype_where_the_config_asks_for_it(tmp_path: Path) -> None:
    written = write_llada(tmp_path, config={"rope_full_precision": False})
    ids = random_ids(96)
    weights = stored_weights(tmp_path)
    wanted = llada_logits(weights, written.config, ids, dtype=torch.bfloat16, rotation=torch.bfloat16)
    assert relative_error(load_model(tmp_path, dtype="bfloat16")(ids[None]).logits[0], wanted) < 1e-2


def test_configuration(checkpoint: TinyCheckpoint) -> None:
    config = load_config(checkpoint.folder)
    assert isinstance(config, LLaDAConfig)
    assert (config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (
        64,
        4,
        4,
        16,
    )
    assert (config.num_hidden_layers, config.intermediate_size, config.vocab_size) == (
        2,
        96,
        len(checkpoint.token_ids) + 37,
    )
    assert (config.max_position_embeddings, config.rope_parameters["rope_theta"], config.rms_norm_eps) == (
        2048,
        5e5,
        1e-5,
    )
    assert (config.is_causal, config.use_cache, config.rope_full_precision) == (False, False, True)
    assert config.mask_token_id == checkpoint.token_ids["<|mdm_mask|>"]
    assert config.eos_token_ids == [checkpoint.token_ids["<|endoftext|>"], checkpoint.token_ids["<|eot_id|>"]]


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"mlp_hidden_size": None, "mlp_ratio": 3}, "intermediate_size", 192),
        ({"n_kv_heads": None}, "num_key_value_heads", 4),
        ({"n_kv_heads": None, "multi_query_attention": True}, "num_key_value_heads", 1),
        ({"embedding_size": None, "vocab_size": 448}, "vocab_size", 448),
        ({"vocab_size": 440, "embedding_size": 448}, "vocab_size", 448),
        ({"torch_dtype": "bfloat16"}, "dtype", torch.bfloat16),
        ({"dtype": "bfloat16"}, "dtype", torch.bfloat16),
        ({"suppress_token_ids": [7]}, "suppress_token_ids", [7]),
    ],
)
def test_fields_that_follow_from_others(tmp_path: Path, changes: dict[str, Any], name: str, value: object) -> None:
    write_llada(tmp_path / "a", config=changes)
    config = load_config(tmp_path / "a")
    assert getattr(config, name) == value
    config.save_pretrained(tmp_path / "b")
    saved = json.loads((tmp_path / "b" / "config.json").read_text())
    assert saved.get("vocab_size") == changes.get("vocab_size", saved["embedding_size"])
    assert getattr(LLaDAConfig.from_pretrained(tmp_path / "b"), name) == value


def test_published_ids_name_the_end_of_a_turn(tmp_path: Path) -> None:
    ids = {"vocab_size": 126464, "embedding_size": 126464, "mask_token_id": 126336, "eos_token_id": 126081}
    written = write_llada(tmp_path, config=ids)
    fields = {name: value for name, value in written.config.items() if name != "eos_token_ids"}
    assert LLaDAConfig.from_dict(fields).eos_token_ids == [126081, 126348]
    assert LLaDAConfig.from_dict(fields | {"eos_token_id": 126080}).eos_token_ids == [126080]
    assert LLaDAConfig.from_dict(fields | {"eos_token_ids": [126348]}).eos_token_ids == [126348]
    saved = LLaDAConfig.from_dict(fields).to_diff_dict()
    assert "eos_token_ids" not in saved


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_saved_back_under_the_original_names(tmp_path: Path, tied: bool) -> None:
    written = write_llada(tmp_path / "original", dtype=torch.bfloat16, tied=tied)
    model, tokenizer = load_model(tmp_path / "original"), load_tokenizer(tmp_path / "original")
    assert model.dtype == torch.bfloat16
    save_model(model, tokenizer, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    differing = {name for name in config.keys() | written.config.keys() if config.get(name) != written.config.get(name)}
    assert differing == {"transformers_version", "torch_dtype"}
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    assert weights.keys() == written.weights.keys()
    assert all(torch.equal(weights[name], written.weights[name]) for name in weights)
    again = load_model(tmp_path / "saved")
    assert torch.equal(again(random_ids(2, 9)).logits, model(random_ids(2, 9)).logits)
    assert again.config.suppress_token_ids == model.config.suppress_token_ids


@torch.no_grad()
def test_shards_have_the_original_names(tmp_path: Path) -> None:
    written = write_llada(tmp_path / "original", shards=4)
    model = load_model(tmp_path / "original")
    model.save_pretrained(tmp_path / "saved", max_shard_size="60KB")
    index = json.loads((tmp_path / "saved" / "model.safetensors.index.json").read_text())["weight_map"]
    assert index.keys() == written.weights.keys()
    assert len(set(index.values())) > 2
    assert all(name in load_file(tmp_path / "saved" / file) for name, file in index.items())
    assert torch.equal(load_model(tmp_path / "saved")(random_ids(2, 9)).logits, model(random_ids(2, 9)).logits)


def test_a_model_made_here_has_a_complete_config(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 12345.0}
    ids = {"vocab_size": 50, "mask_token_id": 48, "eos_token_id": 49, "eos_token_ids": [49], "pad_token_id": 49}
    model = LLaDAModelLM(LLaDAConfig(**sizes, **ids, rope_parameters=rope)).eval()
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["d_model"], config["block_type"], config["rope"], config["vocab_size"]) == (32, "llama", True, 50)
    assert config["rope_theta"] == 12345.0
    assert torch.equal(load_model(tmp_path)(random_ids(1, 5) % 50).logits, model(random_ids(1, 5) % 50).logits)


@torch.no_grad()
def test_auto_classes(checkpoint: TinyCheckpoint) -> None:
    assert isinstance(AutoConfig.from_pretrained(checkpoint.folder), LLaDAConfig)
    assert type(AutoModelForMaskedLM.from_pretrained(checkpoint.folder)) is LLaDAModelLM


def test_every_embedding_is_trained(checkpoint: TinyCheckpoint) -> None:
    """The padding token is the end-of-sequence token: torch leaves a padding row of an embedding without gradient."""
    model = load_model(checkpoint.folder).train()
    end = checkpoint.config["pad_token_id"]
    model(torch.tensor([[5, end, end]])).logits.square().sum().backward()
    assert model.model.embed_tokens.weight.grad[end].abs().sum() > 0
    assert all(weight.grad.abs().sum() > 0 for weight in model.parameters())


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.usefixtures("attention_of_pytorch")
def test_compiled_without_graph_breaks(checkpoint: TinyCheckpoint, dtype: str) -> None:
    model, ids = load_model(checkpoint.folder, dtype=dtype), random_ids(2, 12)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for lengths in (None, torch.tensor([12, 7])):
        assert torch.equal(compiled(ids, lengths=lengths).logits, model(ids, lengths=lengths).logits)


@torch.no_grad()
def test_a_key_value_cache_is_filled_and_read(checkpoint: TinyCheckpoint) -> None:
    """Queries of the second half alone, over cached keys of the first: what one pass over both gives them."""
    trunk, ids = load_model(checkpoint.folder).model, random_ids(1, 10)
    cache = DynamicCache(config=trunk.config)
    # By position: transformers 5.24 renamed the argument.
    whole = trunk(ids, None, None, cache, use_cache=True).last_hidden_state
    cache.crop(-5)
    mask = torch.ones(1, 1, 5, 10, dtype=torch.bool)
    second = trunk(ids[:, 5:], mask, None, cache, use_cache=True).last_hidden_state
    torch.testing.assert_close(second, whole[:, 5:], rtol=1e-4, atol=1e-4)


def test_ragged_batches_decode_as_alone(checkpoint: TinyCheckpoint) -> None:
    model, tokenizer = load_model(checkpoint.folder), load_tokenizer(checkpoint.folder)
    texts = ["Anna has 12 apples.", "How far does the train travel in 2.5 hours? Please reason step by step.", "6"]
    prompts = [tokenizer.encode(text) for text in texts]
    config = tad_ext.DecodeConfig(gen_length=24, block_length=8, policy=tad_ext.EntropyThreshold(1.0))
    together = tad_ext.decode(model, prompts, config)
    for row, prompt in enumerate(prompts):
        alone = tad_ext.decode(model, [prompt], config)
        assert alone.sequences[0] == together.sequences[row]
        assert torch.equal(torch.as_tensor(alone.reveal_step[0]), torch.as_tensor(together.reveal_step[row]))
    nameless = set(range(len(checkpoint.token_ids), model.config.vocab_size))
    assert not nameless & {token for sequence in together.sequences for token in sequence}
