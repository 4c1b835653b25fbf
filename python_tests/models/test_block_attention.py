"""Block-causal attention: the logits of an independent formula, and what a token cannot see does not matter."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from every_family import every_family, write
from tiny_checkpoints import TinyCheckpoint, write_dream, write_llada
from torch import Tensor
from transformer_formula import dream_logits, llada_logits, stored_weights

from tad_ext.models.base import mixed_with
from tad_ext.models.cache import KeyValueCache
from tad_ext.models.loading import load_model

IDS = torch.randint(0, 6, (2, 13), generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([13, 9])
BLOCKS = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3], [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]])


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("writer", "formula"), [(write_llada, llada_logits), (write_dream, dream_logits)])
def test_logits_are_those_of_the_formula(
    writer: Callable[[Path], TinyCheckpoint], formula: Callable[..., Tensor], attention: str, tmp_path: Path
) -> None:
    written = writer(tmp_path)
    model = load_model(tmp_path, dtype="float64")
    model.set_attn_implementation(attention)
    logits = model(IDS, lengths=LENGTHS, blocks=BLOCKS).logits
    for row, length in enumerate(LENGTHS.tolist()):
        attends = torch.zeros(length, length, dtype=torch.bool)
        for query in range(length):
            for key in range(length):
                attends[query, key] = int(BLOCKS[row, key]) <= int(BLOCKS[row, query])
        exact = {"dtype": torch.float64, "rotation": torch.float64}
        ids, weights = IDS[row, :length], stored_weights(written.folder)
        wanted = formula(weights, written.config, ids, attends=attends, **exact)
        torch.testing.assert_close(logits[row, :length], wanted, rtol=0, atol=1e-5)
        assert (wanted - formula(weights, written.config, ids, **exact)).abs().max() > 1e-3


@torch.no_grad()
@every_family
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_what_a_token_cannot_see_does_not_matter(family: str, attention: str, tmp_path: Path) -> None:
    model = load_model(write(family, tmp_path / family), dtype="float64")
    model.config.causal_block_length = None
    model.set_attn_implementation(attention)
    whole = model.hidden_rows(IDS, lengths=LENGTHS, blocks=BLOCKS)
    changed = IDS.where(BLOCKS < 2, (IDS + 1) % 6)
    seen = (BLOCKS < 2) & (torch.arange(13) < LENGTHS[:, None])
    after = model.hidden_rows(changed, lengths=LENGTHS, blocks=BLOCKS)
    torch.testing.assert_close(after[seen], whole[seen], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(after[0, 8:], whole[0, 8:], atol=1e-3)
    # The first block alone, one block of all, chosen positions, no padding. transformers' eager attention takes its
    # softmax in float32, whose last bits depend on a row's length, on some processors.
    error = 1e-5 if attention == "eager" else 1e-9
    close = partial(torch.testing.assert_close, rtol=error, atol=error)
    close(whole[:1, :3], model.hidden_rows(IDS[:1, :3]))
    one = model.hidden_rows(IDS, blocks=torch.zeros_like(IDS))
    close(one, model.hidden_rows(IDS))
    close(model.hidden_rows(IDS[:1], blocks=BLOCKS[:1]), whole[:1])
    for positions in (torch.tensor([2, 11, 13 + 4]), torch.tensor([[0, 9], [13 + 3, 13 + 8]])):
        rows = model.hidden_rows(IDS, lengths=LENGTHS, blocks=BLOCKS, positions=positions)
        close(rows, whole.flatten(0, 1)[positions])


def test_bad_blocks_are_named(tmp_path: Path) -> None:
    model = load_model(write("llada", tmp_path))
    with pytest.raises(ValueError, match=r"blocks must have input_ids' shape, \(2, 13\), got \(2, 12\)"):
        model(IDS, blocks=BLOCKS[:, 1:])
    with pytest.raises(TypeError, match=r"blocks must be an int64 tensor, got torch.int32"):
        model(IDS, blocks=BLOCKS.int())
    columns = torch.arange(5).expand(2, 5)
    with pytest.raises(ValueError, match="columns needs positions and a cache, and no cache_rows"):
        model.hidden_rows(IDS, blocks=BLOCKS, cache=KeyValueCache(2, 13), columns=columns)


@torch.no_grad()
@every_family
def test_a_model_made_for_blocks_sees_blocks(family: str, tmp_path: Path) -> None:
    model = load_model(write(family, tmp_path / family), dtype="float64")
    blocks = (torch.arange(13) // 4).expand(2, 13)
    wanted = model.hidden_rows(IDS, lengths=LENGTHS, blocks=blocks)
    model.config.causal_block_length = 4
    torch.testing.assert_close(model.hidden_rows(IDS, lengths=LENGTHS), wanted, rtol=0, atol=0)
    torch.testing.assert_close(model.hidden_rows(IDS[:1, :8]), wanted[:1, :8], rtol=1e-9, atol=1e-9)


def test_a_mixture_with_the_mask_has_the_mixed_length() -> None:
    """By hand: of (3, 4), length 5, and (0, 1), length 1, by halves: (1.5, 2.5), brought to the length 3."""
    token, mask = torch.tensor([[3.0, 4.0]]), torch.tensor([0.0, 1.0])
    found = mixed_with(mask, token, torch.tensor([0.5]))
    wanted = torch.tensor([[1.5, 2.5]]) * 3 / 8.5**0.5
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(mixed_with(mask, token, torch.tensor([0.0])), mask[None])


@torch.no_grad()
@every_family
def test_shares_of_tokens(family: str, tmp_path: Path) -> None:
    """1 is the token itself and 0 the mask, in columns as in whole rows."""
    model = load_model(write(family, tmp_path / family), dtype="float64")
    shares, mask = torch.ones(2, 13), model.config.mask_token_id
    ids = IDS.where(mask != IDS, (mask + 1) % 6)
    whole = model.hidden_rows(ids, lengths=LENGTHS)
    torch.testing.assert_close(model.hidden_rows(ids, lengths=LENGTHS, shares=shares), whole, rtol=0, atol=0)
    shares[:, 3] = 0
    masked = ids.clone()
    masked[:, 3] = mask
    wanted = model.hidden_rows(masked, lengths=LENGTHS)
    torch.testing.assert_close(model.hidden_rows(ids, lengths=LENGTHS, shares=shares), wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"^shares must have input_ids' shape, \(2, 13\), got \(2, 12\)"):
        model.hidden_rows(ids, shares=shares[:, 1:])
    with pytest.raises(TypeError, match=r"^shares must be a float32 tensor, got torch.float64"):
        model.hidden_rows(ids, shares=shares.double())
    shares[:, 3] = 0.5
    between = model.hidden_rows(ids, lengths=LENGTHS, shares=shares)
    assert not torch.allclose(between, wanted, atol=1e-4)
    cache, columns = KeyValueCache(2, 13), torch.arange(2, 8).expand(2, 6)
    model.hidden_rows(ids, lengths=LENGTHS, cache=cache, shares=shares)
    positions = torch.tensor([[4, 7], [13 + 4, 13 + 7]])
    again = model.hidden_rows(ids, lengths=LENGTHS, positions=positions, cache=cache, columns=columns, shares=shares)
    torch.testing.assert_close(again, between.flatten(0, 1)[positions], rtol=1e-6, atol=1e-6)
