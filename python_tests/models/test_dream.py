"""Dream from original checkpoints: the logits of an independent formula, the shift by one, decoding, saving back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_checkpoints import TinyCheckpoint, write_dream
from torch import Tensor
from transformer_formula import dream_logits, stored_weights

import tad_ext
from tad_ext.models import DreamConfig, DreamModel, load_config, load_model, load_tokenizer
from tad_ext.models.loading import save_model


@pytest.fixture
def checkpoint(tmp_path: Path) -> TinyCheckpoint:
    return write_dream(tmp_path / "dream")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DreamModel:
    return load_model(write_dream(tmp_path_factory.mktemp("dream")).folder)


def random_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 400, shape, generator=torch.Generator().manual_seed(seed))


def expected(written: TinyCheckpoint, ids: Tensor, dtype: torch.dtype, rotation: torch.dtype) -> Tensor:
    return dream_logits(stored_weights(written.folder), written.config, ids, dtype=dtype, rotation=rotation)


def relative_error(found: Tensor, wanted: Tensor) -> float:
    return ((found.double() - wanted.double()).square().mean() / wanted.double().square().mean()).sqrt().item()


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("options", [{}, {"kv_heads": 4}, {"tied": True}, {"shards": 3, "layers": 3, "width": 32}])
def test_logits_are_those_of_the_formula(tmp_path: Path, implementation: str, options: dict[str, Any]) -> None:
    written = write_dream(tmp_path, **options)
    model = load_model(tmp_path)
    assert type(model) is DreamModel
    model.set_attn_implementation(implementation)
    ids, lengths = random_ids(2, 40), [40, 23]
    logits = model(ids, lengths=torch.tensor(lengths)).logits
    for row, length in enumerate(lengths):
        wanted = expected(written, ids[row, :length], torch.float64, torch.float64)
        torch.testing.assert_close(logits[row, :length].double(), wanted, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.usefixtures("attention_of_pytorch")
def test_bfloat16_rotates_in_bfloat16(tmp_path: Path, seed: int) -> None:
    """As the original does; a rotation in float32 must be seen by this comparison."""
    written = write_dream(tmp_path, seed=seed)
    ids = random_ids(96, seed=seed)
    logits = load_model(tmp_path, dtype="bfloat16")(ids[None]).logits[0]
    assert relative_error(logits, expected(written, ids, torch.bfloat16, torch.bfloat16)) < 1e-2
    assert relative_error(logits, expected(written, ids, torch.bfloat16, torch.float32)) > 1.1e-2


@torch.no_grad()
@given(length=st.integers(1, 9), rows=st.integers(1, 4), data=st.data())
def test_chosen_positions_are_shifted_within_their_row(
    model: DreamModel, length: int, rows: int, data: st.DataObject
) -> None:
    ids = random_ids(rows, length)
    full = model(ids).logits.flatten(0, 1)
    positions = torch.tensor(data.draw(st.lists(st.integers(-1, rows * length - 1), max_size=12)), dtype=torch.int64)
    chosen = model(ids, positions=positions).logits
    real = positions >= 0
    torch.testing.assert_close(chosen[real], full[positions[real]], rtol=1e-5, atol=1e-5)
    assert chosen.isfinite().all()


@torch.no_grad()
def test_the_first_two_positions_share_a_row(model: DreamModel) -> None:
    logits = model(random_ids(3, 6)).logits
    assert torch.equal(logits[:, 0], logits[:, 1])
    assert not torch.equal(logits[:, 1], logits[:, 2])


def test_configuration(checkpoint: TinyCheckpoint) -> None:
    config = load_config(checkpoint.folder)
    assert isinstance(config, DreamConfig)
    assert (config.hidden_size, config.num_attention_heads, config.num_key_value_heads) == (64, 4, 2)
    assert (config.rope_parameters["rope_theta"], config.rms_norm_eps, config.is_causal) == (1e6, 1e-6, False)
    assert config.mask_token_id == checkpoint.token_ids["<|mask|>"]
    assert config.eos_token_ids == [checkpoint.token_ids["<|endoftext|>"], checkpoint.token_ids["<|im_end|>"]]


def test_published_ids_name_the_end_of_a_turn(checkpoint: TinyCheckpoint) -> None:
    fields = {name: value for name, value in checkpoint.config.items() if name != "eos_token_ids"}
    ids = {"vocab_size": 152064, "mask_token_id": 151666, "eos_token_id": 151643, "pad_token_id": 151643}
    assert DreamConfig.from_dict(fields | ids).eos_token_ids == [151643, 151645]


@torch.no_grad()
@pytest.mark.parametrize("tied", [False, True])
def test_saved_back_with_the_original_fields(tmp_path: Path, tied: bool) -> None:
    written = write_dream(tmp_path / "original", dtype=torch.bfloat16, tied=tied)
    model, tokenizer = load_model(tmp_path / "original"), load_tokenizer(tmp_path / "original")
    assert model.dtype == torch.bfloat16
    save_model(model, tokenizer, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    differing = {name for name in config.keys() | written.config.keys() if config.get(name) != written.config.get(name)}
    assert differing == {"transformers_version"}
    weights = load_file(tmp_path / "saved" / "model.safetensors")
    assert weights.keys() == written.weights.keys()
    assert all(torch.equal(weights[name], written.weights[name]) for name in weights)
    again = load_model(tmp_path / "saved")
    assert torch.equal(again(random_ids(2, 9)).logits, model(random_ids(2, 9)).logits)
    assert again.config.suppress_token_ids == model.config.suppress_token_ids


@pytest.mark.slow
@torch.no_grad()
def test_compiled_without_graph_breaks(model: DreamModel) -> None:
    compiled, ids, positions = torch.compile(model, backend="eager", fullgraph=True), random_ids(2, 12), torch.arange(7)
    assert torch.equal(compiled(ids, positions=positions).logits, model(ids, positions=positions).logits)


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


def test_ids_without_a_token_are_never_decoded(checkpoint: TinyCheckpoint) -> None:
    """The head prefers such ids by far; the smallest of them is the first id after the tokenizer's last."""
    model = load_model(checkpoint.folder)
    known = len(checkpoint.token_ids)
    assert model.config.suppress_token_ids == list(range(known, known + 37))
    model.lm_head.weight.data[known:] *= 50
    config = tad_ext.DecodeConfig(gen_length=16, block_length=16, policy=tad_ext.TopK(4), stop_at_eos=False)
    decoded = tad_ext.decode(model, [[1, 2, 3]], config).sequences[0]
    assert max(decoded) < known
    model.config.suppress_token_ids = None
    assert max(tad_ext.decode(model, [[1, 2, 3]], config).sequences[0]) >= known
