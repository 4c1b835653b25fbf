"""The masked diffusion interface, on the tiny model: bidirectional, ragged rows as if alone, chosen rows only."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForMaskedLM

from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM

VOCABULARY, PAD = 24, 23


def make_model(implementation: str = "sdpa", **changes: object) -> TinyDiffusionLM:
    ids = {"mask_token_id": 21, "eos_token_ids": [22], "suppress_token_ids": [PAD], "pad_token_id": PAD}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
        config = TinyDiffusionConfig(**{**sizes, "num_key_value_heads": 2, "num_hidden_layers": 2, **ids, **changes})
        return TinyDiffusionLM._from_config(config, attn_implementation=implementation).eval()


@pytest.fixture(scope="module", params=["sdpa", "eager"])
def model(request: pytest.FixtureRequest) -> TinyDiffusionLM:
    return make_model(request.param)


def random_ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, PAD, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("lengths", [None, torch.tensor([8])])
def test_every_position_sees_every_other(model: TinyDiffusionLM, lengths: torch.Tensor | None) -> None:
    ids = random_ids(1, 8)
    before = model(ids, lengths=lengths).logits
    for changed in range(8):
        other = ids.clone()
        other[0, changed] = (ids[0, changed] + 1) % PAD
        difference = (model(other, lengths=lengths).logits - before).abs().amax(-1)
        assert (difference > 1e-6).all()


@torch.no_grad()
@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5), extra=st.integers(0, 5), seed=st.integers(0, 99))
def test_padded_rows_are_as_they_are_alone(lengths: list[int], extra: int, seed: int) -> None:
    model = make_model()
    ids = random_ids(len(lengths), max(lengths) + extra, seed=seed)
    logits = model(ids, lengths=torch.tensor(lengths)).logits
    for row, length in enumerate(lengths):
        alone = model(ids[row : row + 1, :length]).logits[0]
        torch.testing.assert_close(logits[row, :length], alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_padding_ids_do_not_matter(model: TinyDiffusionLM) -> None:
    lengths = torch.tensor([5, 9, 12])
    ids = random_ids(3, 12)
    padding = torch.arange(12) >= lengths[:, None]
    poisoned = torch.where(padding, PAD, ids)
    real = ~padding
    assert torch.equal(model(ids, lengths=lengths).logits[real], model(poisoned, lengths=lengths).logits[real])


@torch.no_grad()
def test_chosen_rows_equal_the_full_output(model: TinyDiffusionLM) -> None:
    ids, lengths = random_ids(3, 7), torch.tensor([7, 4, 6])
    positions = torch.tensor([20, 0, -1, 9, 9, 13])
    full = model(ids, lengths=lengths).logits.flatten(0, 1)
    chosen = model(ids, lengths=lengths, positions=positions).logits
    assert chosen.shape == (6, VOCABULARY)
    real = positions >= 0
    torch.testing.assert_close(chosen[real], full[positions[real]], rtol=1e-6, atol=1e-6)
    assert chosen.isfinite().all()
    hidden = model.hidden_rows(ids, lengths=lengths, positions=positions)
    assert hidden.shape == (6, 32)
    assert torch.equal(model.lm_head(hidden), chosen)


def test_the_head_runs_on_chosen_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = make_model(), []
    model.lm_head.register_forward_hook(lambda _module, inputs, _output: seen.append(tuple(inputs[0].shape)))
    model(random_ids(4, 9), positions=torch.tensor([1, 2, 3]))
    assert seen == [(3, 32)]


@torch.no_grad()
def test_empty_inputs_and_empty_rows_stay_finite(model: TinyDiffusionLM) -> None:
    assert model(random_ids(2, 4), positions=torch.empty(0, dtype=torch.int64)).logits.shape == (0, VOCABULARY)
    assert model(random_ids(2, 4), lengths=torch.tensor([0, 4])).logits.isfinite().all()


def test_gradients_reach_every_weight_and_no_padding() -> None:
    model = make_model().train()
    ids, lengths = random_ids(2, 6), torch.tensor([6, 3])
    model(ids, lengths=lengths, positions=torch.tensor([0, 4, 7])).logits.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in model.parameters())
    unseen = set(ids[1, 3:].tolist()) - set(ids[0].tolist()) - set(ids[1, :3].tolist())
    assert unseen
    assert all(model.model.embed_tokens.weight.grad[token].abs().sum() == 0 for token in unseen)


def test_saved_and_loaded_by_the_auto_classes(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    config = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(config, TinyDiffusionConfig)
    assert (config.is_causal, config.mask_token_id, config.eos_token_ids, config.suppress_token_ids) == (
        False, 21, [22], [PAD],
    )  # fmt: skip
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    assert type(loaded) is TinyDiffusionLM
    ids = random_ids(2, 5)
    assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_default_size() -> None:
    model = TinyDiffusionLM(TinyDiffusionConfig())
    assert 250_000 <= sum(weight.numel() for weight in model.parameters()) <= 350_000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_ids": torch.zeros(1, 4)}, TypeError, "input_ids must be an int64 tensor, got torch.float32"),
        ({"input_ids": [[1]]}, TypeError, "input_ids must be an int64 tensor, got list"),
        ({"input_ids": random_ids(4)}, ValueError, r"input_ids must have 2 dimension\(s\), got shape \(4,\)"),
        ({"lengths": torch.tensor([4])}, ValueError, "lengths must have one entry per row of input_ids, 2, got 1"),
        ({"lengths": torch.tensor([4.0, 4.0])}, TypeError, "lengths must be an int64 tensor"),
        ({"positions": random_ids(2, 2, 1)}, ValueError, r"positions must have 1 or 2 dimension\(s\), got shape"),
        ({"positions": random_ids(3, 2)}, ValueError, "positions must have one row per row of input_ids, 2, got 3"),
        ({"input_ids": random_ids(1, 129)}, ValueError, "input_ids has 129 positions, more than the model's 128"),
    ],
)
def test_wrong_inputs_are_named(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_model()(**{"input_ids": random_ids(2, 4), **arguments})
